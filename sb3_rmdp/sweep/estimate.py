"""What is left of a sweep to pay, by what is paid already."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from sb3_rmdp.sweep.config import Run


def estimated_seconds(runs: Iterable[Run], rows: Iterable[Mapping[str, str]]) -> list[float | None]:
    """
    Seconds that trainings will take on one core, by those of runs that are most like them: of the same environment, k, number
    of agents and algorithm; else of another algorithm; else of another k. Trainings are taken to last as long as they have
    transitions.

    :param runs: to estimate
    :param rows: of finished runs
    :return: seconds of each run; ``None`` if its environment is not among the rows
    """
    last = {row["run"]: row for row in rows}
    rates: dict[tuple, list[float]] = defaultdict(list)
    for row in last.values():
        transitions = int(row["k"]) * int(row["transitions_per_policy"])
        n = json.loads(row["env_kwargs"]).get("n_agents")
        for key in _keys(row["env"], int(row["k"]), n, row["algorithm"]):
            rates[key].append(float(row["seconds"]) / transitions)
    seconds: list[float | None] = []
    for run in runs:
        known = (rates[key] for key in _keys(run.env_id, run.k, run.n, run.algorithm) if key in rates)
        rate = next(known, None)
        seconds.append(None if rate is None else float(np.mean(rate)) * run.k * run.transitions)
    return seconds


def _keys(env_id: str, k: int, n: int | None, algorithm: str) -> list[tuple]:
    """What runs may have in common, the most first."""
    return [(env_id, k, n, algorithm), (env_id, k, n), (env_id, n), (env_id,)]


def duration(seconds: float) -> str:
    """
    :param seconds: any number of them
    :return: the same for people: "50 s", "12 min", "3.4 h" or "2.5 days"
    """
    for name, size in (("days", 86400.0), ("h", 3600.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
