"""Welfare against policies (figures 2 and 3 of the paper), and against transitions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from benchmarks.figures.plan import Sweep, Task, by_label
from benchmarks.figures.statistics import mean_and_error
from sb3_rmdp.plots.style import DARK, DPI, FAINT, Colour, label_axes, mix, palette

#: Told apart without colours as well
MARKERS = "osD^vP*X"
#: Between algorithms at the same k, so that bars of errors do not hide each other; in steps of k
DODGE = 0.07
#: What the dashed line is called
BOUND = "at most"


class Look(NamedTuple):
    """
    How an algorithm is drawn.

    :param colour: of lines and marks
    :param marker: of its means
    :param shift: to the right, in steps of k
    """

    colour: Colour
    marker: str
    shift: float


def save(figure: Figure, path: Path) -> Path:
    """
    The same figure gives the same bytes: nothing in the file tells when or by what it was made.

    :param figure: to be saved as PNG
    :param path: where; missing folders are made
    :return: where
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path


def plot_welfare(sweep: Sweep, kind: str) -> Figure | None:
    """
    A panel per environment: means and standard errors of each algorithm against k, and what is possible at most.

    At a k where one algorithm stands for all, it alone has a mark, and the lines of the others go through it.

    :param sweep: with or without results
    :param kind: of policy, "stochastic" or "deterministic"
    :return: the figure; ``None`` without results
    """
    checkpoint = sweep.reached()
    if checkpoint is None:
        return None
    panels = {label: tasks for label, tasks in by_label(sweep.plan.tasks).items() if _any(sweep, tasks, checkpoint)}
    figure, axes = _panels(len(panels))
    for panel, (label, tasks) in zip(axes, panels.items(), strict=False):
        for algorithm, look in _looks(sweep).items():
            _draw_algorithm(panel, sweep, tasks, algorithm, checkpoint, kind, look)
        _draw_bounds(panel, [sweep.bound(task) for task in tasks])
        sizes = [sweep.n_agents(task) for task in tasks]
        differ = len(set(sizes) - {None}) > 1
        names = [f"{task.k}\nn={size}" if differ and size else f"{task.k}" for task, size in zip(tasks, sizes, strict=True)]
        panel.set_xticks(range(len(tasks)), names)
        panel.set_xlim(-0.5, len(tasks) - 0.5)
        panel.set_title(_title(sweep, label, tasks, checkpoint), fontsize=11)
        label_axes(panel, "policies k", f"social welfare, {kind}")
        panel.grid(axis="y", color=FAINT, alpha=0.4, linewidth=0.8)
    _legend(figure, axes)
    return figure


def plot_learning(sweep: Sweep, kind: str) -> Figure | None:
    """
    A panel per environment and k: means and standard errors against transitions per policy.

    :param sweep: with or without results
    :param kind: of policy, "stochastic" or "deterministic"
    :return: the figure; ``None`` without results
    """
    checkpoint = sweep.reached()
    tasks = [] if checkpoint is None else [task for task in sweep.plan.tasks if _any(sweep, [task], checkpoint)]
    if checkpoint is None or not tasks:
        return None
    figure, axes = _panels(len(tasks), height=3.0)
    for panel, task in zip(axes, tasks, strict=False):
        for algorithm, (colour, marker, _) in _looks(sweep).items():
            points = []
            for x in sweep.plan.checkpoints:
                values = list(sweep.welfare(task, algorithm, x, kind).values())
                if values:
                    mean, error = mean_and_error(values)
                    points.append((x, mean, np.nan if error is None else error))
            if points:
                x, mean, error = np.array(points).T
                panel.plot(x, mean, color=colour, linewidth=1.8, marker=marker, markersize=4, label=algorithm)
                panel.fill_between(x, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
        bound = sweep.bound(task)
        if bound is not None:
            panel.axhline(bound, color=DARK, linestyle="--", linewidth=1.2, label=BOUND)
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.set_title(_title(sweep, f"{task.label}, k={task.k}, n={sweep.n_agents(task)}", [task], checkpoint), fontsize=10)
        label_axes(panel, "transitions per policy", f"social welfare, {kind}")
        panel.grid(color=FAINT, alpha=0.4, linewidth=0.8)
    _legend(figure, axes)
    return figure


def _any(sweep: Sweep, tasks: Sequence[Task], checkpoint: int) -> bool:
    return any(sweep.at(task, algorithm, checkpoint) for task in tasks for algorithm in sweep.plan.algorithms_of(task))


def _looks(sweep: Sweep) -> dict[str, Look]:
    """By algorithm; thin lines need more contrast than areas."""
    names = sweep.plan.algorithms
    return {
        name: Look(mix(colour, 0.0, 0.1), MARKERS[index % len(MARKERS)], DODGE * (index - (len(names) - 1) / 2))
        for index, (name, colour) in enumerate(zip(names, palette(len(names)), strict=True))
    }


def _panels(count: int, height: float = 4.0) -> tuple[Figure, list[Axes]]:
    """
    :param count: number of panels
    :param height: of each, in inches
    :return: a figure with so many axes, at most four in a row
    """
    columns = 4 if count > 6 else min(count, 2 if count == 4 else 3)
    lines = -(-count // columns)
    width = 6.4 if count == 1 else 4.4
    figure = Figure(figsize=(columns * width, lines * height + 0.5), layout="constrained")
    axes: list[Axes] = list(figure.subplots(lines, columns, squeeze=False).flat)
    for spare in axes[count:]:
        spare.set_axis_off()
    return figure, axes[:count]


def _draw_algorithm(
    axes: Axes, sweep: Sweep, tasks: Sequence[Task], algorithm: str, checkpoint: int, kind: str, look: Look
) -> None:
    """A line through the means, with a mark and an error where this algorithm itself was run."""
    line, own = [], []
    for position, task in enumerate(tasks):
        stand_in = algorithm not in sweep.plan.algorithms_of(task)
        values = sweep.welfare(task, sweep.plan.algorithms[0] if stand_in else algorithm, checkpoint, kind)
        if not values:
            continue
        mean, error = mean_and_error(list(values.values()))
        # All lines meet where one algorithm stands for all
        x = float(position) if len(sweep.plan.algorithms_of(task)) == 1 else position + look.shift
        line.append((x, mean))
        if not stand_in:
            own.append((x, mean, np.nan if error is None else error))  # of a single seed none is drawn
    if not own:
        return
    axes.plot(*np.array(line).T, color=look.colour, linewidth=1.5, alpha=0.8)
    x, mean, error = np.array(own).T
    axes.errorbar(x, mean, error, color=look.colour, fmt=look.marker, markersize=6, capsize=3, label=algorithm)


def _draw_bounds(axes: Axes, bounds: Sequence[float | None]) -> None:
    """A dashed line for each k: between two of them there is nothing."""
    known = {position: bound for position, bound in enumerate(bounds) if bound is not None}
    if known:
        left, right = np.array(list(known)) - 0.4, np.array(list(known)) + 0.4
        axes.hlines(list(known.values()), left, right, color=DARK, linestyle="--", linewidth=1.5, label=BOUND)


def _title(sweep: Sweep, name: str, tasks: Sequence[Task], checkpoint: int) -> str:
    """Name, and what the panel lacks."""
    last = sweep.plan.checkpoints[-1]
    lacks = [sweep.seeds_done(tasks, checkpoint)]
    if checkpoint < last:
        lacks.append(f"{checkpoint:,} of {last:,} transitions")
    said = ", ".join(lack for lack in lacks if lack)
    return f"{name}\n{said}" if said else name


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One for all panels, on top, what is possible at most at its end."""
    handles = {label: handle for panel in axes for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    handles = {label: handles[label] for label in sorted(handles, key=lambda label: label == BOUND)}
    per_row = max(1, int(figure.get_figwidth() * 12) // (6 + max(map(len, handles))))
    figure.legend(list(handles.values()), list(handles), loc="outside upper center", fontsize=10, frameon=False, ncols=per_row)
