"""The ways of representatives over a grid."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, sqrt
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sb3_rmdp.plots.grid import Tile, check_home, draw_grid, draw_home, draw_tile
from sb3_rmdp.plots.style import Colour, finish, mix, palette

LANE = 0.11  # tours keep so far to the right of the middle of the tiles, in tiles


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
    check_home(home, shape)
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
        draw_grid(axes, shape)
        for row, col in set(map(tuple, tour)):
            draw_tile(axes, row, col, mix(colour, 1.0, 0.75))
        _draw_way(axes, tour, mix(colour, 0.0, 0.2), scale=tile / 0.55)
        draw_home(axes, home, size=14 * tile / 0.55)
        axes.set_title(captions[index], fontsize=size)
    if title:
        figure.suptitle(title, fontsize=13)
    return finish(figure, path)


def _check_tour(index: int, tour: Sequence[Tile], shape: tuple[int, int], home: Tile) -> None:
    if not tour or tuple(tour[0]) != tuple(home):
        raise ValueError(f"tour {index} does not start at home={home}: pass its tiles with home as the first")
    for row, col in tour:
        if not (0 <= row < shape[0] and 0 <= col < shape[1]):
            raise ValueError(f"tour {index} leaves the {shape[0]} x {shape[1]} grid at {(row, col)}: pass (row, col) on it")
    for here, there in pairwise(tour):
        if abs(here[0] - there[0]) + abs(here[1] - there[1]) > 1:
            raise ValueError(f"tour {index} jumps from {tuple(here)} to {tuple(there)}: pass every tile on the way")


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


def _length(tour: Sequence[Tile], home: Tile) -> str:
    steps = len(tour) - 1
    return f"{steps} step" + "s" * (steps != 1) + ", not home" * (tuple(tour[-1]) != tuple(home))
