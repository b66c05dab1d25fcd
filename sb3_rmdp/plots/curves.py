"""Learning curves."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import ArrayLike

from sb3_rmdp.plots.style import DARK, FAINT, finish, label_axes, mix, palette


def plot_welfare_curves(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    optimum: float | None = None,
    xlabel: str = "timesteps",
    ylabel: str = "social welfare",
    path: str | Path | None = None,
    optimum_label: str = "optimum",
) -> Figure:
    """
    Learning curves: lines, or means over seeds with a band of one standard error.

    :param curves: by name, x of shape (points,) and y of shape (points,) or (seeds, points), all finite
    :param optimum: value of the dashed line that the curves should reach
    :param xlabel: what x is
    :param ylabel: what y is
    :param path: file to save to, as PNG unless its suffix says otherwise; missing folders are made
    :param optimum_label: what the dashed line is, e.g. "upper bound"
    :return: the figure
    :raises ValueError: if there are no curves, shapes do not fit together or a value is not finite
    """
    if not curves:
        raise ValueError("curves is empty: pass at least one")
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    colours = [mix(colour, 0.0, 0.1) for colour in palette(len(curves))]  # thin lines need more contrast than areas
    for (name, (x, y)), colour in zip(curves.items(), colours, strict=True):
        points, values = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        if points.ndim != 1 or values.ndim not in (1, 2) or values.shape[-1:] != points.shape or not values.size:
            raise ValueError(
                f"curve {name!r} has x of shape {points.shape} and y of shape {values.shape}: "
                "pass (points,) and either (points,) or (seeds, points)"
            )
        if not (np.isfinite(points).all() and np.isfinite(values).all()):
            raise ValueError(f"curve {name!r} has values that are not finite: drop those points")
        seeds = np.atleast_2d(values)
        mean = seeds.mean(axis=0)
        axes.plot(points, mean, color=colour, linewidth=2, label=name, marker="o" if points.size == 1 else None)
        if len(seeds) > 1:
            error = seeds.std(axis=0, ddof=1) / sqrt(len(seeds))
            axes.fill_between(points, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
    if optimum is not None:
        axes.axhline(optimum, color=DARK, linestyle="--", linewidth=1.5, label=f"{optimum_label} ({optimum:.2f})")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 500k, 1M
    axes.grid(color=FAINT, alpha=0.4, linewidth=0.8)
    axes.margins(x=0.02)
    label_axes(axes, xlabel, ylabel)
    # On top of the axes, where it hides no curve; about 80 characters fit in a row.
    columns = max(1, 80 // (6 + max(len(label) for label in axes.get_legend_handles_labels()[1])))
    figure.legend(loc="outside upper center", fontsize=10, frameon=False, ncols=columns)
    return finish(figure, path)
