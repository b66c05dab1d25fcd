"""Rows that sweeps have written: one per run and checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sb3_rmdp.sweep.results import read_results


class BadResults(Exception):
    """A file of results, or of a sweep, that cannot be drawn; the message says where and why."""


@dataclass(frozen=True)
class Row:
    """
    A checkpoint of a run.

    :param run: id of the run
    :param env: gymnasium id
    :param env_kwargs: arguments of the environment
    :param k: number of representatives
    :param n_agents: number of agents
    :param algorithm: name of the algorithm in its sweep
    :param transitions: per policy, up to here
    :param welfare: social welfare by kind of policy, "stochastic" and "deterministic"
    :param greedy: welfare with sampled actions if every agent chose anew among the representatives
    :param bound: optimum or upper bound of welfare, if it is known
    :param representatives: who serves each agent, (n_agents,)
    :param seconds: of training, up to here
    :param cells: the row as it stands in the file, by column
    """

    run: str
    env: str
    env_kwargs: Mapping[str, Any]
    k: int
    n_agents: int
    algorithm: str
    transitions: int
    welfare: Mapping[str, float]
    greedy: float
    bound: float | None
    representatives: tuple[int, ...]
    seconds: float
    cells: Mapping[str, str] = field(repr=False, compare=False)


def read_rows(path: Path) -> list[Row]:
    """
    :param path: CSV that sweeps have appended to
    :return: rows of complete runs, in the order of the file; none if there is no file
    :raises BadResults: if columns are missing, a row has another schema or cannot be read, or a checkpoint is there twice
    """
    try:
        rows = [_row(path, cells) for cells in read_results(path)]
    except ValueError as error:
        raise BadResults(str(error)) from error
    seen: set[tuple[str, int]] = set()
    for row in rows:
        key = row.run, row.transitions
        if key in seen:
            raise BadResults(f"{path} has run {row.run} at {row.transitions} transitions twice: remove all rows of the run")
        seen.add(key)
    return rows


def _row(path: Path, cells: Mapping[str, str]) -> Row:
    """
    :param path: file, for the error
    :param cells: by column
    :return: the row
    :raises ValueError: if it cannot be read
    """
    try:
        return Row(
            run=cells["run"],
            env=cells["env"],
            env_kwargs=json.loads(cells["env_kwargs"]),
            k=int(cells["k"]),
            n_agents=int(cells["n_agents"]),
            algorithm=cells["algorithm"],
            transitions=int(cells["transitions_per_policy"]),
            welfare={kind: float(cells[kind]) for kind in ("stochastic", "deterministic")},
            greedy=float(cells["stochastic_greedy"]),
            bound=float(cells["bound"]) if cells["bound"] else None,
            representatives=tuple(map(int, cells["representatives"].split())),
            seconds=float(cells["seconds"]),
            cells=cells,
        )
    except ValueError as error:
        raise ValueError(f"{path}, run {cells['run']}: {error}; remove all rows of the run") from error
