"""A grid of tiles, row 0 on top."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from sb3_rmdp.plots.style import DARK, FAINT, Colour

Tile = tuple[int, int]

HOUSE = [(-1.0, -0.9), (1.0, -0.9), (1.0, 0.2), (0.0, 1.1), (-1.0, 0.2)]  # marker of the home tile


def check_home(home: Tile, shape: tuple[int, int]) -> None:
    """
    :param home: row and column of the home tile
    :param shape: rows and columns of the grid
    :raises ValueError: if it is not on the grid
    """
    if not (0 <= home[0] < shape[0] and 0 <= home[1] < shape[1]):
        raise ValueError(f"home={home} is outside of the {shape[0]} x {shape[1]} grid: pass a (row, col) on it")


def draw_grid(axes: Axes, shape: tuple[int, int]) -> None:
    """
    White tiles, row 0 on top.

    :param axes: to draw on
    :param shape: rows and columns of the grid
    """
    rows, cols = shape
    axes.set(xlim=(-0.52, cols - 0.48), ylim=(rows - 0.48, -0.52), aspect="equal", xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    for row in range(rows):
        for col in range(cols):
            draw_tile(axes, row, col, (1.0, 1.0, 1.0))


def draw_tile(axes: Axes, row: int, col: int, colour: Colour, edge: str = FAINT) -> None:
    """
    :param axes: to draw on
    :param row: of the tile
    :param col: of the tile
    :param colour: of its face
    :param edge: colour of its edge
    """
    axes.add_patch(Rectangle((col - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor=edge))


def draw_home(axes: Axes, home: tuple[float, float], size: float, colour: str = DARK) -> None:
    """
    :param axes: to draw on
    :param home: row and column of the middle of the mark
    :param size: of the mark, in points
    :param colour: of the mark
    """
    axes.plot(home[1], home[0], marker=HOUSE, markersize=size, color=colour, markeredgecolor="white", zorder=5)
