"""Who is served by whom, and how that changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from sb3_rmdp.plots.grid import Tile, check_home, draw_grid, draw_home, draw_tile
from sb3_rmdp.plots.style import QUALITATIVE, Colour, draw_legend, finish, ink_on, label_axes, legend_width, palette


def plot_assignment_map(
    assignment: ArrayLike,
    shape: tuple[int, int],
    home: Tile | None = None,
    utilities: ArrayLike | None = None,
    path: str | Path | None = None,
) -> Figure:
    """
    Who is served by whom on a grid with an agent per tile.

    :param assignment: representative of each agent, integers of shape (n,), n = rows * cols, agent = row * cols + col
    :param shape: rows and columns of the grid
    :param home: row and column of the home tile, to be marked
    :param utilities: return of each agent under each representative, shape (n, k): each tile then shows its agent's own,
        and representatives without agents enter the legend
    :param path: file to save to, as PNG unless its suffix says otherwise; missing folders are made
    :return: the figure
    :raises ValueError: if shapes do not fit together or an index is out of range
    """
    rows, cols = shape
    table = None if utilities is None else np.asarray(utilities, dtype=np.float64)
    if table is not None and (table.ndim != 2 or len(table) != rows * cols):
        raise ValueError(f"utilities has shape {table.shape}: pass one row per agent, ({rows * cols}, k)")
    served_by, k = _check_assignment(assignment, None if table is None else table.shape[1])
    if len(served_by) != rows * cols:
        raise ValueError(f"assignment of {len(served_by)} agents on a {rows} x {cols} grid: pass {rows * cols} of them")
    if home is not None:
        check_home(home, shape)

    colours = palette(k)
    figure = Figure(figsize=(max(cols * 0.8, 2.0) + legend_width(k), max(rows * 0.8, 2.0) + 0.3), layout="constrained")
    axes = figure.add_subplot()
    draw_grid(axes, shape)
    for agent, representative in enumerate(served_by):
        row, col = divmod(agent, cols)
        ink = ink_on(colours[representative])
        draw_tile(axes, row, col, colours[representative], edge="white")
        lift = 0.0 if table is None else 0.12
        axes.text(col, row - lift, str(representative), ha="center", va="center", color=ink, fontsize=15, weight="bold")
        if table is not None:
            axes.text(col, row + 0.28, f"{table[agent, representative]:.4g}", ha="center", va="center", color=ink, fontsize=9)
        if home is not None and (row, col) == tuple(home):
            draw_home(axes, (row - 0.3, col - 0.3), size=9, colour=ink)
    draw_legend(axes, colours, served_by)
    return finish(figure, path)


def plot_assignment_histogram(
    targets: ArrayLike,
    assignment: ArrayLike,
    k: int | None = None,
    bins: int | Sequence[float] = 40,
    xlabel: str = "target velocity",
    path: str | Path | None = None,
) -> Figure:
    """
    Agents by target and representative, stacked (figures 4 and 5 of the paper).

    :param targets: target of each agent, e.g. its velocity, shape (n,), finite
    :param assignment: representative of each agent, integers of shape (n,)
    :param k: number of representatives; the largest index in ``assignment`` plus one unless given
    :param bins: number of bars or their rising edges; agents outside of the edges are not drawn
    :param xlabel: what the targets are
    :param path: file to save to, as PNG unless its suffix says otherwise; missing folders are made
    :return: the figure
    :raises ValueError: if shapes do not fit together, a target is not finite or an index is out of range
    """
    served_by, k = _check_assignment(assignment, k)
    values = np.asarray(targets, dtype=np.float64)
    if values.shape != served_by.shape:
        raise ValueError(f"targets has shape {values.shape}: pass one per agent, {served_by.shape} as in assignment")
    if not np.isfinite(values).all():
        raise ValueError(f"targets has {np.count_nonzero(~np.isfinite(values))} values that are not finite: drop them")

    edges = np.histogram_bin_edges(values, bins)
    figure = Figure(figsize=(6.4 + legend_width(k), 3.8), layout="constrained")
    axes = figure.add_subplot()
    colours = palette(k)
    draw_histogram(axes, values, served_by, edges, colours)
    label_axes(axes, xlabel, "agents")
    draw_legend(axes, colours, served_by)
    return finish(figure, path)


def draw_histogram(
    axes: Axes, targets: NDArray[np.float64], served_by: NDArray[np.int64], edges: NDArray, colours: Sequence[Colour]
) -> None:
    """
    The bars of :func:`plot_assignment_histogram`, for figures of several panels.

    :param axes: to draw on
    :param targets: of the agents, (n,)
    :param served_by: representative of each agent, (n,)
    :param edges: of the bars, rising
    :param colours: one per representative
    """
    below = np.zeros(len(edges) - 1)
    for representative, colour in enumerate(colours):
        counts = np.histogram(targets[served_by == representative], edges)[0]
        shown = counts > 0
        bars = edges[:-1][shown], counts[shown], np.diff(edges)[shown], below[shown]
        axes.bar(*bars, align="edge", color=colour, edgecolor="white", linewidth=0.5)
        below += counts
    axes.set_xlim(edges[0], edges[-1])
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def plot_group_sizes(assignment: ArrayLike, k: int | None = None, path: str | Path | None = None) -> Figure:
    """
    How many agents every representative serves.

    :param assignment: representative of each agent, integers of shape (n,)
    :param k: number of representatives; the largest index in ``assignment`` plus one unless given
    :param path: file to save to, as PNG unless its suffix says otherwise; missing folders are made
    :return: the figure
    :raises ValueError: if the shape is wrong or an index is out of range
    """
    served_by, k = _check_assignment(assignment, k)
    edges = (np.arange(k)[:, None] + [-0.4, 0.4]).ravel().tolist()  # gaps between the bars
    figure = plot_assignment_histogram(served_by, served_by, k, edges, xlabel="representative")
    figure.axes[0].set_xlim(-0.6, k - 0.4)
    figure.axes[0].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return finish(figure, path)


def plot_flips(timesteps: ArrayLike, flips: ArrayLike, n_agents: int, path: str | Path | None = None) -> Figure:
    """
    How many agents changed their representative, in each part of a training.

    :param timesteps: edges of the parts, rising, shape (parts + 1,)
    :param flips: agents that have another representative at the end of a part than at its beginning, shape (parts,)
    :param n_agents: number of agents
    :param path: file to save to, as PNG unless its suffix says otherwise; missing folders are made
    :return: the figure
    :raises ValueError: if there are no parts, shapes do not fit together, edges do not rise or flips are out of range
    """
    edges, counts = np.asarray(timesteps, dtype=np.float64), np.asarray(flips)
    if counts.ndim != 1 or counts.size == 0 or edges.shape != (counts.size + 1,):
        raise ValueError(
            f"timesteps has shape {edges.shape} and flips {counts.shape}: pass the edges of at least one part, "
            "(parts + 1,) and (parts,)"
        )
    if not (np.diff(edges) > 0).all():
        raise ValueError(f"timesteps={edges.tolist()} do not rise: pass the edges of the parts in order")
    if counts.min() < 0 or counts.max() > n_agents:
        raise ValueError(f"flips are from {counts.min()} to {counts.max()}: pass numbers from 0 to n_agents={n_agents}")

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.add_subplot()
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=QUALITATIVE[-1], edgecolor="white", linewidth=0.5)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.05 * max(counts.max(), 1))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 500k, 1M
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"last: {counts[-1]} of {n_agents} agents", fontsize=10, loc="right")
    label_axes(axes, "timesteps", "agents with a new representative")
    return finish(figure, path)


def _check_assignment(assignment: ArrayLike, k: int | None) -> tuple[NDArray[np.int64], int]:
    """The assignment as an array (n,), and the number of representatives."""
    served_by = np.asarray(assignment)
    if served_by.ndim != 1 or served_by.size == 0 or not np.issubdtype(served_by.dtype, np.integer):
        raise ValueError(f"assignment has shape {served_by.shape} and type {served_by.dtype}: pass one integer per agent")
    k = int(served_by.max()) + 1 if k is None else k
    if served_by.min() < 0 or served_by.max() >= k:
        raise ValueError(f"assignment has indices from {served_by.min()} to {served_by.max()}: pass them in [0, k) for k={k}")
    return served_by.astype(np.int64), k
