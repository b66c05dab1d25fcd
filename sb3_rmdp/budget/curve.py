"""Welfare against the number of policies: what was measured, what the next policy is worth, tables and files."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from scipy.special import stdtrit

from sb3_rmdp.budget.checking import check_curve
from sb3_rmdp.common.evaluation import WelfareEvaluation
from sb3_rmdp.common.report import save_text, to_json, with_error
from sb3_rmdp.common.user_files import read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What files of this format say they are, and its version
FORMAT, VERSION = "sb3_rmdp.budget", 1

#: Share of the welfare of the largest k that is called enough
ENOUGH = 0.95

#: Level at which a gain is told from nothing
SURE = 0.95


@dataclass(frozen=True)
class BudgetRow:
    """
    One model, evaluated.

    :param k: number of its representatives
    :param seed: of its training, or its number among the models of this k
    :param welfare: mean over agents of their return under their own representative
    :param standard_error: of ``welfare``, over episodes; nan for a single one
    :param worst_utility: utility of the agent that is worst off, chosen by half of the episodes and measured in the other half
    :param worst_error: standard error of that agent's utility over episodes; nan for a single one
    :param greedy_welfare: welfare if every agent took the representative that was best for it in these episodes, which is too
        high
    :param optimum: best possible welfare with k representatives, or an upper bound; ``None`` if nobody knows
    :param transitions_per_policy: that its own training had for each representative; ``None`` if that is not known
    :param transitions_in_total: of all representatives, and of all models that it goes back to; ``None`` as before
    :param started_from: numbers of representatives of the models that it goes back to, the first one first
    :param model: file of the model, if there is one
    """

    k: int
    seed: int
    welfare: float
    standard_error: float
    worst_utility: float
    worst_error: float
    greedy_welfare: float
    optimum: float | None = None
    transitions_per_policy: float | None = None
    transitions_in_total: int | None = None
    started_from: tuple[int, ...] = ()
    model: str | None = None

    @classmethod
    def of_evaluation(cls, result: WelfareEvaluation, seed: int, **facts: Any) -> BudgetRow:
        """
        :param result: evaluation of a model
        :param seed: see the class
        :param facts: fields that are not in the evaluation
        :return: the row
        """
        return cls(
            k=result.utilities.shape[1],
            seed=seed,
            welfare=result.social_welfare,
            standard_error=result.standard_error,
            worst_utility=result.worst_utility,
            worst_error=result.worst_error,
            greedy_welfare=result.greedy_social_welfare,
            optimum=result.optimum,
            **facts,
        )


@dataclass(frozen=True)
class BudgetPoint:
    """
    All models of one k; means over seeds.

    :param k: number of representatives
    :param n_seeds: number of models
    :param error_over: what standard errors of this k are taken over: "seeds", or "episodes" where there is one model
    :param welfare: see :class:`BudgetRow`, as the following
    :param welfare_error: standard error of ``welfare``; nan if it is not known, as for all errors
    :param worst_utility:
    :param worst_error: standard error of ``worst_utility``
    :param greedy_welfare:
    :param optimum:
    :param transitions_per_policy:
    :param transitions_in_total:
    :param next_gain: what each policy more is worth: difference of welfare between the next k of the curve and this one,
        divided by the number of policies between them; ``None`` for the last k
    :param next_gain_error: its standard error
    :param next_gain_over: what that is taken over: "seeds", differences of models of the same seed; "episodes" if there is one
        model each; "both, not paired" if seeds differ
    """

    k: int
    n_seeds: int
    error_over: str
    welfare: float
    welfare_error: float
    worst_utility: float
    worst_error: float
    greedy_welfare: float
    optimum: float | None
    transitions_per_policy: float | None
    transitions_in_total: float | None
    next_gain: float | None = None
    next_gain_error: float | None = None
    next_gain_over: str | None = None

    @property
    def share_of_optimum(self) -> float | None:
        """``welfare`` as a share of ``optimum``; ``None`` without one."""
        return None if self.optimum is None else self.welfare / self.optimum


@dataclass(frozen=True)
class BudgetCurve:
    """
    Welfare, the worst-off agent and the gain of the next policy against the number of policies k.

    :param env: name of the environment
    :param n_agents: number of its agents
    :param rows: one per model
    :param n_eval_episodes: episodes per representative in which they were evaluated
    :param deterministic: whether actions were the likeliest ones
    :param settings: of the environment and the training, for the record
    """

    env: str
    n_agents: int
    rows: tuple[BudgetRow, ...]
    n_eval_episodes: int
    deterministic: bool = True
    settings: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def points(self) -> tuple[BudgetPoint, ...]:
        """One per k, rising."""
        groups = [[row for row in self.rows if row.k == k] for k in sorted({row.k for row in self.rows})]
        points = [_point(group) for group in groups]
        for i, (rows, following) in enumerate(itertools.pairwise(groups)):
            gain, error, over = gain_of_next(rows, following)
            points[i] = dataclasses.replace(points[i], next_gain=gain, next_gain_error=error, next_gain_over=over)
        return tuple(points)

    def smallest_k(self, share: float = ENOUGH) -> int | None:
        """
        :param share: from 0 to 1
        :return: the smallest k of the curve with this share of the welfare that the largest k has; ``None`` if that has none,
            so that there is nothing to have a share of
        """
        wanted = self.points[-1].welfare
        if wanted <= 0.0:
            return None
        return next(point.k for point in self.points if point.welfare >= share * wanted)

    def summary(self) -> list[str]:
        """What to read off the curve, in sentences."""
        *_, last = self.points
        lines = []
        if len(self.points) > 1:
            enough, before = self.smallest_k(), self.points[-2]
            if enough is not None:
                share = f"{100 * ENOUGH:g} % of the welfare of k = {last.k}"
                lines.append(f"k = {enough} is the smallest number of policies here that has {share}.")
            assert before.next_gain is not None and before.next_gain_error is not None
            worth = with_error(before.next_gain, before.next_gain_error)
            doubt = self._doubt(before, last)
            lines.append(f"From k = {before.k} to k = {last.k}, a policy more is worth {worth}{doubt}.")
        shares = [(point.k, point.share_of_optimum) for point in self.points if point.share_of_optimum is not None]
        if shares:
            known = ", ".join(f"{100 * share:.1f} % with k = {k}" for k, share in shares)
            lines.append(f"Of the optimum, or its upper bound: {known}.")
        return lines

    def _doubt(self, point: BudgetPoint, following: BudgetPoint) -> str:
        """What is to be said of a gain that may be chance; nothing if it is not."""
        gain, error = point.next_gain, point.next_gain_error
        assert gain is not None and error is not None
        # Of models if there are several, else of the episodes of one
        freedom = min(one.n_seeds - 1 if one.n_seeds > 1 else self.n_eval_episodes - 1 for one in (point, following))
        if math.isnan(error) or freedom < 1:
            return ", whose error is not known"
        quantile = float(stdtrit(freedom, (1 + SURE) / 2))
        return "" if gain > quantile * error else f", less than {quantile:.1f} standard errors above 0: it may be chance"

    def table(self) -> Table:
        """The curve as a table for ``rich.print``."""
        actions = "likeliest" if self.deterministic else "sampled"
        table = Table(
            box=SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,
            title=f"{self.env}: {self.n_eval_episodes} episodes per policy, {actions} actions",
        )
        for column in ("k", "welfare", "optimum", "worst off", "next policy", "each", "in total"):
            table.add_column(column, justify="right", no_wrap=True)
        for point in self.points:
            gain, error = point.next_gain, point.next_gain_error
            table.add_row(
                str(point.k),
                with_error(point.welfare, point.welfare_error),
                "-" if point.optimum is None else f"{point.optimum:.2f}",
                with_error(point.worst_utility, point.worst_error),
                "-" if gain is None or error is None else with_error(gain, error),
                _short(point.transitions_per_policy),
                _short(point.transitions_in_total),
            )
        table.caption = self._caption()
        return table

    def _caption(self) -> str:
        seeds = sorted({point.n_seeds for point in self.points})
        of_means = "episodes of one model" if seeds == [1] else f"{' or '.join(map(str, seeds))} models per k"
        over = [point.next_gain_over for point in self.points if point.next_gain_over]
        of_gains = "" if not over else f"; of the next policy: over {' or '.join(dict.fromkeys(over))}"
        started = any(row.started_from for row in self.rows)
        in_total = ", those of the models it was started from included" if started else ""
        return f"Standard errors: over {of_means}{of_gains}. Transitions of each policy, and of all in total{in_total}."

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data: rows, and points that follow from them."""
        facts = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "rows"}
        points = [{**dataclasses.asdict(point), "share_of_optimum": point.share_of_optimum} for point in self.points]
        rows = [dataclasses.asdict(row) for row in self.rows]
        return {"format": FORMAT, "version": VERSION, **facts, "points": points, "rows": rows}

    def save(self, path: str | Path) -> Path:
        """
        :param path: JSON file, written whole or not at all; ".json" is added where there is no suffix
        :return: the file
        """
        return save_text(to_json(self.as_dict()), Path(path), ".json")

    @classmethod
    def load(cls, path: str | Path) -> BudgetCurve:
        """
        :param path: file that :meth:`save` wrote
        :return: the curve
        :raises ValueError: if it holds something else
        :raises OSError: if it cannot be read
        """
        try:
            content = read_json(Path(path), "budget curve")
            if (content["format"], content["version"]) != (FORMAT, VERSION):
                raise ValueError(f"format {content['format']!r}, version {content['version']!r}")
            check_curve(content)
            rows = tuple(_row(row) for row in content["rows"])
            facts = {item.name: content[item.name] for item in dataclasses.fields(cls) if item.name != "rows"}
            return cls(rows=rows, **facts)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{path} holds no budget curve of this version: {error}") from error

    def plot(self, path: str | Path | None = None) -> Figure:
        """
        Draw the curve: welfare and the optimum, the worst-off agent, and what the next policy is worth.

        :param path: file to save to, as PNG unless its suffix says otherwise; missing folders are made
        :return: the figure
        :raises ImportError: if matplotlib is not installed
        """
        check_can_plot()
        from sb3_rmdp.budget.picture import plot_budget

        return plot_budget(self, path)


def check_can_plot() -> None:
    """
    :raises ImportError: if there is no matplotlib, with the line that installs it
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "sb3_rmdp[plots]"') from error


def gain_of_next(rows: Sequence[BudgetRow], following: Sequence[BudgetRow]) -> tuple[float, float, str]:
    """
    What each policy more is worth between two numbers of policies.

    Models of the same seed are compared with each other if there are several: what seeds have in common, all the more if the
    larger model was started from the smaller one, is no error of the difference.

    :param rows: models of one k
    :param following: models of a larger one
    :return: the gain per policy, its standard error, and what this was taken over; see :class:`BudgetPoint`
    """
    step = following[0].k - rows[0].k
    welfare = {row.seed: row.welfare for row in rows}
    of_next = {row.seed: row.welfare for row in following}
    if len(rows) > 1 and welfare.keys() == of_next.keys():
        gain, error = _mean_with_error([(of_next[seed] - welfare[seed]) / step for seed in welfare])
        return gain, error, "seeds"
    (mean, error, over), (mean_of_next, error_of_next, over_next) = _welfare(rows), _welfare(following)
    is_single = over == over_next == "episodes"
    return (
        (mean_of_next - mean) / step,
        math.hypot(error, error_of_next) / step,
        "episodes" if is_single else "both, not paired",
    )


def _welfare(rows: Sequence[BudgetRow]) -> tuple[float, float, str]:
    """Mean welfare, its standard error, and what this is taken over."""
    if len(rows) == 1:
        return rows[0].welfare, rows[0].standard_error, "episodes"
    return (*_mean_with_error([row.welfare for row in rows]), "seeds")


def _mean_with_error(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def _point(rows: Sequence[BudgetRow]) -> BudgetPoint:
    welfare, welfare_error, over = _welfare(rows)
    worst = [row.worst_utility for row in rows]
    worst_utility, worst_error = _mean_with_error(worst) if len(rows) > 1 else (worst[0], rows[0].worst_error)
    per_policy = [row.transitions_per_policy for row in rows if row.transitions_per_policy is not None]
    in_total = [row.transitions_in_total for row in rows if row.transitions_in_total is not None]
    return BudgetPoint(
        k=rows[0].k,
        n_seeds=len(rows),
        error_over=over,
        welfare=welfare,
        welfare_error=welfare_error,
        worst_utility=worst_utility,
        worst_error=worst_error,
        greedy_welfare=float(np.mean([row.greedy_welfare for row in rows])),
        optimum=rows[0].optimum,
        transitions_per_policy=float(np.mean(per_policy)) if len(per_policy) == len(rows) else None,
        transitions_in_total=float(np.mean(in_total)) if len(in_total) == len(rows) else None,
    )


def _short(count: float | None) -> str:
    """
    >>> _short(20_480), _short(1_024_000), _short(48), _short(None)
    ('20.5k', '1.02M', '48', '-')
    """
    if count is None:
        return "-"
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{letter}"
    return f"{count:g}"


def _row(content: dict[str, Any]) -> BudgetRow:
    """A row of a file, in which nan is null and a tuple is a list."""
    errors = {name: math.nan for name in ("standard_error", "worst_error") if content[name] is None}
    return BudgetRow(**{**content, **errors, "started_from": tuple(content["started_from"])})
