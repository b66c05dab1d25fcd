"""Picture of the curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, StrMethodFormatter

from sb3_rmdp.plots.style import FAINT, finish, label_axes, palette

#: x of the curves, what is drawn, and names of both
PANELS = (
    ("n", "seconds", "agents n", "seconds per update"),
    ("n", "memory_gb", "agents n", "peak memory, GB"),
    ("k", "seconds", "policies k", "seconds per update"),
    ("threads", "seconds", "threads", "seconds per update"),
)


def plot_curves(curves: Sequence[dict[str, Any]], path: Path | None = None) -> Figure:
    """
    :param curves: as in the report
    :param path: file to save to
    :return: the figure, in which straight lines are powers
    """
    figure = Figure(figsize=(9.6, 7.2), layout="constrained")
    for axes, (x, y, xlabel, ylabel) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        drawn = [curve for curve in curves if curve["x"] == x and curve["points"]]
        for curve, colour in zip(drawn, palette(max(1, len(drawn))), strict=False):
            points, power = curve["points"], curve["exponents"][y]
            label = curve["title"] if power is None else f"{curve['title']}: exponent {power:.2f}"
            values = [[point[name] for point in points] for name in ("x", y)]
            axes.plot(*values, color=colour, linewidth=2, marker="o", label=label)
        axes.set_xscale("log", base=2 if x == "threads" else 10)
        axes.set_yscale("log")
        # Plain numbers, those between powers of ten only where they have room
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(LogFormatter())
        if x != "n":
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.grid(color=FAINT, alpha=0.4, linewidth=0.8)
        label_axes(axes, xlabel, ylabel)
        if drawn:
            # On top, where it hides no curve
            axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), fontsize=9, frameon=False)
    return finish(figure, path)
