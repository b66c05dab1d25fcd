"""Reports of an evaluation: a few rows for tables, tables for the terminal, and plain data for other programs."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from scipy.special import stdtr

from sb3_rmdp.common.evaluation import WelfareEvaluation, half_error
from sb3_rmdp.common.whole_files import save_whole

#: Share of those who are called clearly better off elsewhere that may be so by chance alone
CHANCE = 0.05


@dataclass(frozen=True)
class RepresentativeSummary:
    """
    What one representative does for whom; utilities are nan, and the agent is ``None``, where it serves nobody.

    :param index: which representative
    :param n_agents: number of agents that it serves
    :param mean_utility: mean utility of these agents
    :param error_bound: upper bound of the standard error of ``mean_utility``; nan for a single episode
    :param worst_agent: the one of them that is worst off, by half of the episodes
    :param worst_utility: utility of that agent, in the other half
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
    worst = int(worst_off(result, 1, served)[0])
    return RepresentativeSummary(
        index=index,
        n_agents=len(served),
        mean_utility=float(column[served].mean()),
        # Agents share episodes, so their errors do not average out: at worst all of them err together
        error_bound=float(result.utilities_standard_error[served, index].mean()),
        worst_agent=worst,
        worst_utility=own_utility(result, worst)[0],
        mean_over_all=mean_over_all,
    )


def worst_off(result: WelfareEvaluation, n: int = 5, among: np.ndarray | None = None) -> np.ndarray:
    """
    Agents with the lowest utility under their own representative in episodes 0, 2, ... of it. Their utilities in the other
    episodes, :func:`own_utility`, are not too low by this choice.

    :param result: an evaluation; where it does not know halves of its episodes, all of them choose
    :param n: how many agents at most
    :param among: indices of the agents to choose from, all by default
    :return: indices of the agents, the lowest first, (<= n,) int64
    """
    agents = np.arange(len(result.assignment)) if among is None else among
    by = result.agent_utilities if result.half_utilities is None else result.split.choose
    return agents[np.argsort(by[agents], kind="stable")[:n]]


def own_utility(result: WelfareEvaluation, agent: int) -> tuple[float, float]:
    """
    :param result: an evaluation
    :param agent: one that :func:`worst_off` has chosen
    :return: its utility in the episodes that it was not chosen by, and the standard error of that
    """
    if result.half_utilities is None:
        own = result.assignment[agent]
        return float(result.utilities[agent, own]), float(result.utilities_standard_error[agent, own])
    _, measure, error = result.split
    return float(measure[agent]), float(error[agent])


def best_representative(result: WelfareEvaluation, agent: int, others: bool = False) -> tuple[int, float, float] | None:
    """
    The representative under which an agent was best off in episodes 0, 2, ... of each, and its utility there in the others.

    :param result: an evaluation; where it does not know halves of its episodes, all of them choose and measure
    :param agent: which agent
    :param others: leave its own representative out; else it wins ties
    :return: index, utility, and the standard error of that; ``None`` if there is no other
    """
    own, k, n = int(result.assignment[agent]), result.utilities.shape[1], result.n_eval_episodes
    among = [j for j in (own, *range(k)) if not (others and j == own)]
    if not among:
        return None
    halves, scale = result.half_utilities, 1.0
    choose = measure = result.utilities[agent]
    if halves is not None and n > 1:
        (choose, measure), scale = halves[:, agent], half_error(n)
    best = max(among, key=lambda j: choose[j])
    return best, float(measure[best]), scale * float(result.utilities_standard_error[agent, best])


def better_elsewhere(result: WelfareEvaluation) -> np.ndarray:
    """
    Agents whose assignment lags behind: another representative served them better by more than chance explains.

    A t test for each agent, of its best representative here against its own, with ``n_eval_episodes - 1`` degrees of freedom.
    The level is divided by the number of the other representatives (Bonferroni), and allows for the number of agents: of those
    who are returned at most :data:`CHANCE` are expected to be so by chance (Benjamini and Hochberg). The best one is taken to
    vary at least as all of them do in the mean: a failure that it did not have yet may come.

    :param result: an evaluation
    :return: their indices, int64; none for a single episode per representative, whose errors are not known
    """
    agents, (n_agents, k) = np.arange(len(result.assignment)), result.utilities.shape
    gain = result.utilities[agents, result.greedy] - result.agent_utilities
    variances = np.square(result.utilities_standard_error)
    # Episodes of different representatives are independent
    of_best = np.maximum(variances[agents, result.greedy], variances.mean(axis=1))
    error = np.sqrt(variances[agents, result.assignment] + of_best)
    # Without noise the error is 0, and gains of a rounding error are none
    real = (result.greedy != result.assignment) & (gain > 0.0) & ~np.isclose(gain, 0.0) & np.isfinite(error)
    statistic = np.divide(gain, error, out=np.where(real, np.inf, 0.0), where=error > 0.0)
    chance = np.where(real, (k - 1) * stdtr(max(result.n_eval_episodes - 1, 1), -statistic), 1.0)
    ranked = np.sort(chance)
    passed = np.flatnonzero(ranked <= CHANCE * np.arange(1, n_agents + 1) / n_agents)
    return np.flatnonzero(real & (chance <= ranked[passed[-1]])) if len(passed) else passed


def print_result(result: WelfareEvaluation, deterministic: bool) -> None:
    """
    :param result: an evaluation
    :param deterministic: whether actions were the likeliest ones
    """
    console = Console(markup=False, highlight=False)
    actions = "likeliest" if deterministic else "sampled"
    table = Table("representative", box=SIMPLE_HEAD, title=f"{result.n_eval_episodes} episodes each, {actions} actions")
    table.caption = "mean utility, with the most that its standard error can be, and worst off: of the agents it serves"
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
    table.caption = "worst off and best: by half of the episodes; utilities: in the other half"
    for agent in worst_off(result):
        best = best_representative(result, agent)
        assert best is not None
        own = with_error(*own_utility(result, agent))
        table.add_row(str(agent), str(result.assignment[agent]), own, str(best[0]), with_error(*best[1:]))
    console.print(table)

    line = f"Social welfare {with_error(result.social_welfare, result.standard_error)}"
    if result.share_of_optimum is not None:
        line += f", {100 * result.share_of_optimum:.1f} % of the optimum or its upper bound, {result.optimum:.2f}"
    console.print(line, soft_wrap=True)
    error = "" if math.isnan(result.worst_error) else f"; standard error of the worst off {result.worst_error:.2f}"
    console.print(
        f"Worst off {result.worst_utility:.2f}, Nash welfare {_figure(result.nash_welfare)}, "
        f"Gini coefficient {_figure(result.gini)}{error}",
        soft_wrap=True,
    )
    lagging = better_elsewhere(result)
    if len(lagging):
        console.print(
            f"Note: agents clearly better off with another representative than their own: {len(lagging)}. If everybody took "
            f"the best, welfare would be {result.greedy_social_welfare:.2f}, a little less in other episodes. The assignment "
            "lags behind: train on.",
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
    :param text: what to write, whole or not at all; bytes of file names that are no text are written as ``\\udce9``
    :param path: file; missing folders are made
    :param suffix: added to the name where there is none
    :return: the file
    """
    return save_whole(path, lambda file: file.write(text.encode(errors="backslashreplace")), suffix)
