"""Reports of an evaluation: a few rows for tables, tables for the terminal, and plain data for other programs."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sb3_rmdp.common.evaluation import WelfareEvaluation
from sb3_rmdp.common.files import save_whole

#: An agent is clearly better off elsewhere if it gains more than so many standard errors of the difference. With a hundred
#: agents and a handful of representatives two would call some of them by chance alone.
CLEAR = 3.0


@dataclass(frozen=True)
class RepresentativeSummary:
    """
    What one representative does for whom; utilities are nan, and the agent is ``None``, where it serves nobody.

    :param index: which representative
    :param n_agents: number of agents that it serves
    :param mean_utility: mean utility of these agents
    :param error_bound: upper bound of the standard error of ``mean_utility``; nan for a single episode
    :param worst_agent: the one of them that is worst off
    :param worst_utility: utility of that agent
    :param mean_over_all: mean utility of all agents under this representative, served by it or not
    """

    index: int
    n_agents: int
    mean_utility: float
    error_bound: float
    worst_agent: int | None
    worst_utility: float
    mean_over_all: float


def summarize(result: WelfareEvaluation) -> list[RepresentativeSummary]:
    """
    :param result: an evaluation
    :return: one row per representative
    """
    return [_row(result, index) for index in range(result.utilities.shape[1])]


def _row(result: WelfareEvaluation, index: int) -> RepresentativeSummary:
    column = result.utilities[:, index]
    served = np.flatnonzero(result.assignment == index)
    mean_over_all = float(column.mean())
    if not len(served):
        return RepresentativeSummary(index, 0, np.nan, np.nan, None, np.nan, mean_over_all)
    worst = int(served[column[served].argmin()])
    return RepresentativeSummary(
        index=index,
        n_agents=len(served),
        mean_utility=float(column[served].mean()),
        # Agents share episodes, so their errors do not average out: at worst all of them err together
        error_bound=float(result.utilities_standard_error[served, index].mean()),
        worst_agent=worst,
        worst_utility=float(column[worst]),
        mean_over_all=mean_over_all,
    )


def worst_off(result: WelfareEvaluation, n: int = 5) -> np.ndarray:
    """
    :param result: an evaluation
    :param n: how many agents at most
    :return: indices of the agents with the lowest utility under their own representative, the lowest first, (<= n,) int64
    """
    return np.argsort(result.agent_utilities, kind="stable")[:n]


def better_elsewhere(result: WelfareEvaluation) -> np.ndarray:
    """
    Agents whose assignment lags behind: another representative served them better by more than chance explains.

    :param result: an evaluation
    :return: their indices, int64; none for a single episode per representative, whose errors are not known
    """
    agents = np.arange(len(result.assignment))
    gain = result.utilities[agents, result.greedy] - result.agent_utilities
    # Episodes of different representatives are independent
    errors = result.utilities_standard_error
    error = np.hypot(errors[agents, result.assignment], errors[agents, result.greedy])
    # Without noise the error is 0, and gains of a rounding error are none
    real = ~np.isclose(gain, 0.0) & (gain > CLEAR * error)
    return np.flatnonzero((result.greedy != result.assignment) & real)


def print_result(result: WelfareEvaluation, deterministic: bool) -> None:
    """
    :param result: an evaluation
    :param deterministic: whether actions were the likeliest ones
    """
    console = Console(markup=False, highlight=False)
    actions = "likeliest" if deterministic else "sampled"
    table = Table("representative", box=SIMPLE_HEAD, title=f"{result.n_eval_episodes} episodes each, {actions} actions")
    table.caption = "mean utility, with the most that its error can be, and worst off: of the agents it serves"
    for column in ("agents", "mean utility", "worst off", "mean over all"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in summarize(result):
        worst = "-" if row.worst_agent is None else f"{row.worst_utility:.2f} (agent {row.worst_agent})"
        mean = "-" if row.n_agents == 0 else with_error(row.mean_utility, row.error_bound)
        table.add_row(str(row.index), str(row.n_agents), mean, worst, f"{row.mean_over_all:.2f}")
    console.print(table)

    table = Table("agent", box=SIMPLE_HEAD, title="Worst off")
    for column in ("representative", "utility", "best one here", "utility there"):
        table.add_column(column, justify="right", no_wrap=True)
    for agent in worst_off(result):
        cells = [str(agent)]
        for j in (result.assignment[agent], result.greedy[agent]):
            cells += [str(j), with_error(result.utilities[agent, j], result.utilities_standard_error[agent, j])]
        table.add_row(*cells)
    console.print(table)

    line = f"Social welfare {with_error(result.social_welfare, result.standard_error)}"
    if result.share_of_optimum is not None:
        line += f", {100 * result.share_of_optimum:.1f} % of the optimum or its upper bound, {result.optimum:.2f}"
    console.print(line, soft_wrap=True)
    console.print(
        f"Worst off {result.worst_utility:.2f}, Nash welfare {_figure(result.nash_welfare)}, "
        f"Gini coefficient {_figure(result.gini)}",
        soft_wrap=True,
    )
    lagging = better_elsewhere(result)
    if len(lagging):
        console.print(
            f"Note: agents clearly better off with another representative than their own: {len(lagging)}. If everybody took "
            f"the best, welfare would be {result.greedy_social_welfare:.2f}. The assignment lags behind: train on.",
            soft_wrap=True,
        )


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def with_error(value: float, error: float) -> str:
    """
    >>> with_error(1.0, 0.25), with_error(1.0, float("nan"))
    ('1.00 +- 0.25', '1.00')

    :param value: a mean
    :param error: its standard error; nan if it is not known
    :return: both, for a table
    """
    return f"{value:.2f}" if math.isnan(error) else f"{value:.2f} +- {error:.2f}"


def as_dict(result: WelfareEvaluation) -> dict[str, Any]:
    """
    :param result: an evaluation
    :return: its fields and properties by name
    """
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    properties = ("agent_utilities", "share_of_optimum", "worst_utility", "gini", "nash_welfare")
    return {**fields, **{name: getattr(result, name) for name in properties}}


def plain(value: Any) -> Any:
    """
    >>> plain({"mean": np.float32(0.5), "errors": np.array([1.0, np.nan])})
    {'mean': 0.5, 'errors': [1.0, None]}

    :param value: anything
    :return: the same in the types of JSON; nan and infinities, which it does not know, become null
    """
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def to_json(content: dict[str, Any]) -> str:
    """
    :param content: anything that :func:`plain` understands
    :return: valid JSON, with a line break at its end
    """
    return json.dumps(plain(content), indent=2, allow_nan=False) + "\n"


def save_text(text: str, path: Path, suffix: str) -> Path:
    """
    :param text: what to write, whole or not at all
    :param path: file; missing folders are made
    :param suffix: added to the name where there is none
    :return: the file
    """
    path = path if path.suffix else path.with_name(path.name + suffix)

    def write(file: io.BufferedIOBase) -> None:
        file.write(text.encode())

    save_whole(path, write)
    return path
