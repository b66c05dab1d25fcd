"""The picture of a budget curve. Needs matplotlib; no display, nothing global is touched."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sb3_rmdp.plots.style import DARK, FAINT, label_axes, palette, save_figure

if TYPE_CHECKING:
    from sb3_rmdp.budget.curve import BudgetCurve

#: Sizes of figures, in inches: of one panel, and what each k beyond the first few adds to it
PANEL, HEIGHT, FEW, PER_K = 4.0, 3.8, 6, 0.35


def plot_budget(curve: BudgetCurve, path: str | Path | None = None) -> Figure:
    """
    Three panels: welfare and the optimum, the worst-off agent, and what each policy more is worth, all with standard errors.

    :param curve: what to draw
    :param path: file to save to; missing folders are made
    :return: the figure
    """
    width = PANEL + PER_K * max(0, len(curve.points) - FEW)
    figure = Figure(figsize=(3 * width, HEIGHT), layout="constrained")
    welfare, worst, gain = figure.subplots(1, 3)
    colours = palette(3)
    ks = [point.k for point in curve.points]

    known = [(point.k, point.optimum) for point in curve.points if point.optimum is not None]
    if known:
        label = "optimum, or bound"
        welfare.plot(*zip(*known, strict=True), color=DARK, linestyle="--", linewidth=1.5, marker="_", label=label)
    _draw_line(welfare, curve, "welfare", "welfare_error", colours[0])
    welfare.legend(frameon=False, fontsize=10, loc="lower right")
    _draw_line(worst, curve, "worst_utility", "worst_error", colours[1])
    for axes, name in ((welfare, "social welfare"), (worst, "utility of the worst-off agent")):
        axes.set_xticks(ks)
        axes.margins(0.08)
        label_axes(axes, "number of policies k", name)

    steps = [point for point in curve.points if point.next_gain is not None]
    heights = [point.next_gain for point in steps]
    # What is not known, nan, is not drawn
    errors = [point.next_gain_error for point in steps]
    gain.bar(range(len(steps)), heights, 0.65, yerr=errors, color=colours[2], ecolor=DARK, capsize=4)
    gain.axhline(0.0, color=DARK, linewidth=0.8)
    gain.set_xticks(range(len(steps)), [f"{a} to {b}" for a, b in itertools.pairwise(ks)])
    if not steps:
        gain.text(0.5, 0.5, "a single k", transform=gain.transAxes, ha="center", va="center", color=DARK)
    label_axes(gain, "number of policies k", "gain per policy more")
    for axes in (welfare, worst, gain):
        axes.set_axisbelow(True)
        axes.grid(axis="y", color=FAINT, alpha=0.4, linewidth=0.8)
    figure.suptitle(f"{curve.env}, {curve.n_agents} agents", fontsize=11)
    if path is not None:
        save_figure(figure, path)
    return figure


def _draw_line(axes: Axes, curve: BudgetCurve, value: str, error: str, colour: tuple[float, float, float]) -> None:
    """
    :param axes: where to draw
    :param curve: what to draw
    :param value: name of a value of points
    :param error: name of its standard error; of nan nothing is drawn
    :param colour: of the line
    """
    ks = [point.k for point in curve.points]
    values = [getattr(point, value) for point in curve.points]
    errors = [getattr(point, error) for point in curve.points]
    n_seeds = max(point.n_seeds for point in curve.points)
    if n_seeds > 1:
        seeds = [getattr(row, value) for row in curve.rows]
        axes.scatter([row.k for row in curve.rows], seeds, s=14, color=colour, alpha=0.35, linewidths=0, label="one model")
    label = f"mean of {n_seeds} models" if n_seeds > 1 else "learned"
    axes.errorbar(ks, values, errors, color=colour, linewidth=2, marker="o", markersize=5, capsize=4, label=label)
