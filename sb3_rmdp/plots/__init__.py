"""Figures of tours, assignments and learning curves. Needs matplotlib; no display, nothing global is touched."""

from sb3_rmdp.plots.assignments import plot_assignment_histogram, plot_assignment_map, plot_flips, plot_group_sizes
from sb3_rmdp.plots.callback import AssignmentPlotCallback
from sb3_rmdp.plots.curves import plot_welfare_curves
from sb3_rmdp.plots.style import palette
from sb3_rmdp.plots.tours import plot_tours

__all__ = [
    "AssignmentPlotCallback",
    "palette",
    "plot_assignment_histogram",
    "plot_assignment_map",
    "plot_flips",
    "plot_group_sizes",
    "plot_tours",
    "plot_welfare_curves",
]
