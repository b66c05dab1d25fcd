"""A picture of a tour on a grid, drawn with numpy alone so that no display or drawing library is needed."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

Tile = tuple[int, int]
Colour = tuple[int, int, int]

BACKGROUND: Colour = (38, 50, 56)
GROUND: Colour = (236, 239, 241)
VISITED: Colour = (165, 214, 167)
TRAIL: Colour = (46, 125, 50)
HOUSE: Colour = (141, 110, 99)
ROOF: Colour = (198, 70, 60)
WALKER: Colour = (25, 118, 210)

#: Pixels: tiles are as large as a picture of MAX_PICTURE allows, within these bounds.
MAX_PICTURE, MAX_TILE, MIN_TILE = 512, 128, 8

#: Everything is drawn this many times larger and averaged down, which smooths the edges.
OVERSAMPLING = 2


def tile_pixels(shape: Tile) -> int:
    """
    Side of a tile in the picture. Even, because video encoders refuse odd sizes.

    :param shape: rows and columns of the grid
    :return: pixels; at least 64 up to 8 x 8 tiles, smaller on larger grids to keep the picture within 512
    """
    side = int(np.clip(MAX_PICTURE // max(shape), MIN_TILE, MAX_TILE))
    return side - side % 2


def draw_grid(shape: Tile, home: Tile, path: Sequence[Tile]) -> np.ndarray:
    """
    Draw the grid, the home (a house), the visited tiles, the trail and the walker (a disc) at its end.

    :param shape: rows and columns
    :param home: row and column of the home
    :param path: at least one (row, column), in the order of walking
    :return: (height, width, 3) uint8
    """
    rows, cols = shape
    side = tile_pixels(shape) * OVERSAMPLING
    canvas = np.empty((rows * side, cols * side, 3), dtype=np.uint8)
    canvas[:] = BACKGROUND

    # Coordinates of one tile in [-1, 1]; every shape below is a mask over a tile.
    axis = (np.arange(side) + 0.5) / side * 2 - 1
    x, y = axis[None, :], axis[:, None]
    corner = np.maximum(np.abs(x) - 0.76, 0) ** 2 + np.maximum(np.abs(y) - 0.76, 0) ** 2
    rounded_square = corner < 0.18**2

    visited = set(path)
    for row in range(rows):
        for col in range(cols):
            _paint(canvas, (row, col), side, rounded_square, VISITED if (row, col) in visited else GROUND)

    half_width = max(side // 20, 1)
    for (row, col), (next_row, next_col) in pairwise(path):
        top, bottom = sorted((row, next_row))
        left, right = sorted((col, next_col))
        middle = side // 2
        canvas[
            top * side + middle - half_width : bottom * side + middle + half_width,
            left * side + middle - half_width : right * side + middle + half_width,
        ] = TRAIL

    wall = (np.abs(x) < 0.42) & (y > -0.1) & (y < 0.6) & ~((np.abs(x) < 0.12) & (y > 0.2))
    roof = (y > -0.62) & (y <= -0.1) & (np.abs(x) < (y + 0.62) * 1.15)
    _paint(canvas, home, side, wall, HOUSE)
    _paint(canvas, home, side, roof, ROOF)

    distance = x**2 + y**2
    _paint(canvas, path[-1], side, distance < 0.46**2, GROUND)
    _paint(canvas, path[-1], side, distance < 0.38**2, WALKER)

    blocks = canvas.reshape(rows * side // OVERSAMPLING, OVERSAMPLING, cols * side // OVERSAMPLING, OVERSAMPLING, 3)
    return blocks.mean(axis=(1, 3)).round().astype(np.uint8)


def _paint(canvas: np.ndarray, tile: Tile, side: int, mask: np.ndarray, colour: Colour) -> None:
    """
    Colour the pixels of one tile where a mask holds.

    :param canvas: (rows * side, columns * side, 3) uint8, changed in place
    :param tile: row and column
    :param side: pixels per tile
    :param mask: (side, side) bool
    :param colour: red, green and blue, 0 to 255
    """
    row, col = tile
    canvas[row * side : (row + 1) * side, col * side : (col + 1) * side][mask] = colour
