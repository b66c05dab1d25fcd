"""Figures of tours, assignments and learning curves. Needs matplotlib; no display, nothing global is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil, sqrt
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

Colour = tuple[float, float, float]
Tile = tuple[int, int]

# Told apart with any colour vision: the "muted" scheme of Paul Tol (https://personal.sron.nl/~pault/) and a grey.
QUALITATIVE = ("#332288", "#CC6677", "#44AA99", "#DDCC77", "#882255", "#88CCEE", "#117733", "#AA4499", "#999933", "#777777")
DARK = "#222222"
FAINT = "#BBBBBB"
HOUSE = [(-1.0, -0.9), (1.0, -0.9), (1.0, 0.2), (0.0, 1.1), (-1.0, 0.2)]  # marker of the home tile
LANE = 0.11  # tours keep so far to the right of the middle of the tiles, in tiles
LEGEND_ROWS = 17
DPI = 150


def palette(k: int) -> list[Colour]:
    """
    Colours of k representatives.

    :param k: number of colours, at least 1
    :return: qualitative colours up to ten; beyond that, steps of a map that rises in lightness
    """
    colours = QUALITATIVE[:k] if k <= len(QUALITATIVE) else colormaps["viridis"](np.linspace(0.0, 0.95, k))
    return [to_rgb(colour) for colour in colours]


def plot_tours(
    tours: Sequence[Sequence[Tile]],
    shape: tuple[int, int],
    home: Tile,
    title: str | None = None,
    titles: Sequence[str] | None = None,
    path: str | Path | None = None,
) -> Figure:
    """
    The ways of the representatives over the map of Resource Gathering, a panel each (figure 1 of the paper).

    Ways keep to the right of the middle of the tiles, so that going and coming back are told apart. Bumps count as steps
    and leave no mark.

    :param tours: per representative the (row, col) tiles it enters, home first; it has taken one step less than entries
    :param shape: rows and columns of the grid
    :param home: row and column of the home tile
    :param title: title of the figure
    :param titles: name of each panel, to which its length is added; "Representative j" unless given
    :param path: file to save to, as PNG unless its suffix says otherwise; missing folders are made
    :return: the figure
    :raises ValueError: if there are no tours, one leaves the grid, jumps or starts elsewhere, or titles are not as many
    """
    rows, cols = shape
    _check_home(home, shape)
    if not tours:
        raise ValueError("tours is empty: pass at least one tour")
    if len(tours) != len(titles if titles is not None else tours):
        raise ValueError(f"{len(titles or ())} titles for {len(tours)} tours: pass one title per tour")
    for index, tour in enumerate(tours):
        _check_tour(index, tour, shape, home)

    columns = len(tours) if len(tours) <= 3 else ceil(sqrt(len(tours)))
    lines = ceil(len(tours) / columns)
    tile = min(0.55, max(0.3, 14.0 / (columns * cols)))  # all lengths in inches
    width, height = max(2.0, cols * tile + 0.35), rows * tile + 0.4
    title_width, title_height = (0.11 * len(title), 0.4) if title else (0.0, 0.0)
    figure = Figure(figsize=(max(columns * width, title_width), lines * height + title_height), layout="constrained")
    names = titles if titles is not None else [f"Representative {index}" for index in range(len(tours))]
    captions = [f"{name}: {_length(tour, home)}" for name, tour in zip(names, tours, strict=True)]
    size = min(10.0, 72 * width / (0.6 * max(map(len, captions))))  # characters are about 0.6 of it wide
    for index, (tour, colour) in enumerate(zip(tours, palette(len(tours)), strict=True)):
        axes = figure.add_subplot(lines, columns, index + 1)
        _draw_grid(axes, shape)
        for row, col in set(map(tuple, tour)):
            _draw_tile(axes, row, col, _mix(colour, 1.0, 0.75))
        _draw_way(axes, tour, _mix(colour, 0.0, 0.2), scale=tile / 0.55)
        _draw_home(axes, home, size=14 * tile / 0.55)
        axes.set_title(captions[index], fontsize=size)
    if title:
        figure.suptitle(title, fontsize=13)
    return _finish(figure, path)


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
        _check_home(home, shape)

    colours = palette(k)
    figure = Figure(figsize=(max(cols * 0.8, 2.0) + _legend_width(k), max(rows * 0.8, 2.0) + 0.3), layout="constrained")
    axes = figure.add_subplot()
    _draw_grid(axes, shape)
    for agent, representative in enumerate(served_by):
        row, col = divmod(agent, cols)
        ink = _ink(colours[representative])
        _draw_tile(axes, row, col, colours[representative], edge="white")
        lift = 0.0 if table is None else 0.12
        axes.text(col, row - lift, str(representative), ha="center", va="center", color=ink, fontsize=15, weight="bold")
        if table is not None:
            axes.text(col, row + 0.28, f"{table[agent, representative]:.4g}", ha="center", va="center", color=ink, fontsize=9)
        if home is not None and (row, col) == tuple(home):
            _draw_home(axes, (row - 0.3, col - 0.3), size=9, colour=ink)
    _draw_legend(axes, colours, served_by)
    return _finish(figure, path)


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
    figure = Figure(figsize=(6.4 + _legend_width(k), 3.8), layout="constrained")
    axes = figure.add_subplot()
    colours, below = palette(k), np.zeros(len(edges) - 1)
    for representative, colour in enumerate(colours):
        counts = np.histogram(values[served_by == representative], edges)[0]
        shown = counts > 0
        bars = edges[:-1][shown], counts[shown], np.diff(edges)[shown], below[shown]
        axes.bar(*bars, align="edge", color=colour, edgecolor="white", linewidth=0.5)
        below += counts
    axes.set_xlim(edges[0], edges[-1])
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _label(axes, xlabel, "agents")
    _draw_legend(axes, colours, served_by)
    return _finish(figure, path)


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
    colours = [_mix(colour, 0.0, 0.1) for colour in palette(len(curves))]  # thin lines need more contrast than areas
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
    _label(axes, xlabel, ylabel)
    # On top of the axes, where it hides no curve; about 80 characters fit in a row.
    columns = max(1, 80 // (6 + max(len(label) for label in axes.get_legend_handles_labels()[1])))
    figure.legend(loc="outside upper center", fontsize=10, frameon=False, ncols=columns)
    return _finish(figure, path)


def _check_home(home: Tile, shape: tuple[int, int]) -> None:
    if not (0 <= home[0] < shape[0] and 0 <= home[1] < shape[1]):
        raise ValueError(f"home={home} is outside of the {shape[0]} x {shape[1]} grid: pass a (row, col) on it")


def _check_tour(index: int, tour: Sequence[Tile], shape: tuple[int, int], home: Tile) -> None:
    if not tour or tuple(tour[0]) != tuple(home):
        raise ValueError(f"tour {index} does not start at home={home}: pass its tiles with home as the first")
    for row, col in tour:
        if not (0 <= row < shape[0] and 0 <= col < shape[1]):
            raise ValueError(f"tour {index} leaves the {shape[0]} x {shape[1]} grid at {(row, col)}: pass (row, col) on it")
    for here, there in pairwise(tour):
        if abs(here[0] - there[0]) + abs(here[1] - there[1]) > 1:
            raise ValueError(f"tour {index} jumps from {tuple(here)} to {tuple(there)}: pass every tile on the way")


def _check_assignment(assignment: ArrayLike, k: int | None) -> tuple[NDArray[np.int64], int]:
    """The assignment as an array (n,), and the number of representatives."""
    served_by = np.asarray(assignment)
    if served_by.ndim != 1 or served_by.size == 0 or not np.issubdtype(served_by.dtype, np.integer):
        raise ValueError(f"assignment has shape {served_by.shape} and type {served_by.dtype}: pass one integer per agent")
    k = int(served_by.max()) + 1 if k is None else k
    if served_by.min() < 0 or served_by.max() >= k:
        raise ValueError(f"assignment has indices from {served_by.min()} to {served_by.max()}: pass them in [0, k) for k={k}")
    return served_by.astype(np.int64), k


def _draw_grid(axes: Axes, shape: tuple[int, int]) -> None:
    """White tiles, row 0 on top."""
    rows, cols = shape
    axes.set(xlim=(-0.52, cols - 0.48), ylim=(rows - 0.48, -0.52), aspect="equal", xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    for row in range(rows):
        for col in range(cols):
            _draw_tile(axes, row, col, (1.0, 1.0, 1.0))


def _draw_tile(axes: Axes, row: int, col: int, colour: Colour, edge: str = FAINT) -> None:
    axes.add_patch(Rectangle((col - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor=edge))


def _draw_home(axes: Axes, home: tuple[float, float], size: float, colour: str = DARK) -> None:
    axes.plot(home[1], home[0], marker=HOUSE, markersize=size, color=colour, markeredgecolor="white", zorder=5)


def _draw_way(axes: Axes, tour: Sequence[Tile], colour: Colour, scale: float) -> None:
    """A line in the right-hand lane of the tour, with an arrow head on every step."""
    tiles = [np.array(tile[::-1], dtype=np.float64) for tile in tour]  # (x, y) with y downwards
    moves = [(start, end - start) for start, end in pairwise(tiles) if (end != start).any()]
    if not moves:
        return
    line = [moves[0][0] + LANE * _right(moves[0][1])]
    for (_, before), (corner, after) in pairwise(moves):
        if (before == -after).all():  # turn round at the far side of the tile
            line += [corner + LANE * (before + _right(before)), corner + LANE * (before + _right(after))]
        else:  # straight on, or where the lanes before and after the turn meet
            line.append(corner + LANE * np.clip(_right(before) + _right(after), -1.0, 1.0))
    line.append(moves[-1][0] + moves[-1][1] + LANE * _right(moves[-1][1]))
    axes.plot(*np.array(line).T, color=colour, linewidth=2 * scale, solid_joinstyle="round", solid_capstyle="round")
    markers = {(1, 0): ">", (-1, 0): "<", (0, 1): "v", (0, -1): "^"}
    for start, move in moves:
        x, y = start + 0.55 * move + LANE * _right(move)
        axes.plot(x, y, marker=markers[tuple(move)], markersize=6 * scale, color=colour)


def _right(move: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([-move[1], move[0]])  # right-hand side of (x, y), y downwards


def _mix(colour: Colour, other: float, share: float) -> Colour:
    """``colour`` with a share of a grey: 0 is black, 1 is white."""
    red, green, blue = ((1 - share) * part + share * other for part in colour)
    return red, green, blue


def _ink(colour: Colour) -> str:
    """Black or white, whichever is easier to read on ``colour`` (luma of ITU-R BT.601)."""
    return DARK if np.dot(colour, (0.299, 0.587, 0.114)) > 0.5 else "white"


def _length(tour: Sequence[Tile], home: Tile) -> str:
    steps = len(tour) - 1
    return f"{steps} step" + "s" * (steps != 1) + ", not home" * (tuple(tour[-1]) != tuple(home))


def _legend_width(k: int) -> float:
    return 1.75 * ceil(k / LEGEND_ROWS)  # inches


def _draw_legend(axes: Axes, colours: Sequence[Colour], served_by: NDArray[np.int64]) -> None:
    """Group sizes by representative, on the right."""
    sizes = np.bincount(served_by, minlength=len(colours))  # representatives without agents included
    labels = [f"{index}: {size} agent" + "s" * int(size != 1) for index, size in enumerate(sizes)]
    handles = [Patch(facecolor=colour) for colour in colours]
    columns = ceil(len(colours) / LEGEND_ROWS)
    axes.figure.legend(handles, labels, title="Representative", loc="outside right center", frameon=False, ncols=columns)


def _label(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set_xlabel(xlabel, fontsize=11)
    axes.set_ylabel(ylabel, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)


def _finish(figure: Figure, path: str | Path | None) -> Figure:
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=DPI)
    return figure
