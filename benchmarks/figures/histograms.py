"""Who is served by whom in the velocity tasks, by the speed that agents want (figures 4 and 5 of the paper)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from benchmarks.figures.data import Row
from benchmarks.figures.groups import targets_of
from benchmarks.figures.plan import Sweep
from sb3_rmdp.plots.assignments import draw_histogram
from sb3_rmdp.plots.style import label_axes, palette

#: As in the paper: five representatives for a hundred agents, the first seed
K, N_AGENTS, SEED = 5, 100, 0
BINS = 40
#: Of a name in the legend, with its mark, in inches
LEGEND_WIDTH = 2.0


def last_assignments(sweeps: Iterable[Sweep], env: str) -> tuple[dict[str, Row], int]:
    """
    The sweep with the most algorithms in this environment is taken, of several the first.

    :param sweeps: to choose from
    :param env: gymnasium id
    :return: last row of the first seed by algorithm, which is told apart if its run has not ended, and the number of
        algorithms that there should be
    """
    best: tuple[dict[str, Row], int] = {}, 0
    for sweep in sweeps:
        for task in sweep.plan.tasks:
            if task.env != env or task.k != K or sweep.n_agents(task) != N_AGENTS:
                continue
            algorithms = sweep.plan.algorithms_of(task)
            runs = {name: sweep.rows.get((task, name, SEED), {}) for name in algorithms}
            rows = {_title(name, max(found), sweep): found[max(found)] for name, found in runs.items() if found}
            if len(rows) > len(best[0]):
                best = rows, len(algorithms)
    return best


def _title(algorithm: str, checkpoint: int, sweep: Sweep) -> str:
    return algorithm if checkpoint == sweep.plan.checkpoints[-1] else f"{algorithm} after {checkpoint:,}"


def plot_histograms(by_environment: Mapping[str, tuple[Mapping[str, Row], int]]) -> Figure:
    """
    A row of panels per environment, a panel per algorithm.

    :param by_environment: by name, rows by title and the number of algorithms that there should be
    :return: the figure
    """
    columns = max(len(rows) for rows, _ in by_environment.values())
    lines = len(by_environment)
    figure = Figure(figsize=(3.2 * columns, 2.6 * lines + 0.5), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    colours = palette(K)
    for line, (name, (rows, planned)) in zip(axes, by_environment.items(), strict=True):
        _draw_line(line, name, rows, planned)
        for spare in line[len(rows) :]:
            spare.set_axis_off()
    names = ["slowest group", *(f"{place}. group" for place in range(2, K)), "fastest group"]
    handles = [Patch(facecolor=colour, label=name) for name, colour in zip(names, colours, strict=True)]
    per_row = max(1, int(figure.get_figwidth() / LEGEND_WIDTH))
    figure.legend(handles=handles, loc="outside upper center", frameon=False, ncols=min(K, per_row))
    return figure


def by_speed(representatives: NDArray[np.int64], targets: NDArray[np.float64]) -> NDArray[np.int64]:
    """
    Groups by the speed that they want, so that a colour means the same in every panel: representatives have no order.

    :param representatives: of the agents, (n_agents,)
    :param targets: speeds that agents want, (n_agents,)
    :return: the place of each agent's group among all K of them by its median, 0 for the slowest; empty ones come last
    """
    groups = [targets[representatives == index] for index in range(K)]
    medians = [np.median(group) if len(group) else np.inf for group in groups]
    places = np.argsort(np.argsort(medians, kind="stable"))
    return np.asarray(places[representatives])


def _draw_line(line: Sequence, name: str, rows: Mapping[str, Row], planned: int) -> None:
    """One environment."""
    targets = targets_of(next(iter(rows.values())))
    edges = np.histogram_bin_edges(targets, BINS)
    for axes, (title, row) in zip(line, rows.items(), strict=False):
        draw_histogram(axes, targets, by_speed(np.array(row.representatives), targets), edges, palette(K))
        axes.set_title(title, fontsize=10)
        label_axes(axes, "target velocity", "")
    lacks = "" if len(rows) == planned else f"\n{len(rows)} of {planned} algorithms"
    line[0].set_ylabel(f"{name}\nagents{lacks}", fontsize=10)
