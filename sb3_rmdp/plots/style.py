"""Colours, legends and files, which all figures have in common."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from sb3_rmdp.common.whole_files import save_whole, with_suffix

Colour = tuple[float, float, float]

# Told apart with any colour vision: the "muted" scheme of Paul Tol (https://personal.sron.nl/~pault/) and a grey.
QUALITATIVE = ("#332288", "#CC6677", "#44AA99", "#DDCC77", "#882255", "#88CCEE", "#117733", "#AA4499", "#999933", "#777777")
DARK = "#222222"
FAINT = "#BBBBBB"
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


def mix(colour: Colour, other: float, share: float) -> Colour:
    """
    :param colour: a colour
    :param other: the grey to mix it with: 0 is black, 1 is white
    :param share: of the grey, from 0 to 1
    :return: the mixture
    """
    red, green, blue = ((1 - share) * part + share * other for part in colour)
    return red, green, blue


def ink_on(colour: Colour) -> str:
    """
    :param colour: a background
    :return: dark or white, whichever is easier to read on it (luma of ITU-R BT.601)
    """
    return DARK if np.dot(colour, (0.299, 0.587, 0.114)) > 0.5 else "white"


def legend_width(k: int) -> float:
    """
    :param k: number of representatives
    :return: inches that their legend takes
    """
    return 1.75 * ceil(k / LEGEND_ROWS)


def draw_legend(axes: Axes, colours: Sequence[Colour], served_by: NDArray[np.int64]) -> None:
    """
    Group sizes by representative, on the right.

    :param axes: whose figure gets the legend
    :param colours: one per representative
    :param served_by: representative of each agent, (n,)
    """
    sizes = np.bincount(served_by, minlength=len(colours))  # representatives without agents included
    labels = [f"{index}: {size} agent" + "s" * int(size != 1) for index, size in enumerate(sizes)]
    handles = [Patch(facecolor=colour) for colour in colours]
    columns = ceil(len(colours) / LEGEND_ROWS)
    axes.figure.legend(handles, labels, title="Representative", loc="outside right center", frameon=False, ncols=columns)


def label_axes(axes: Axes, xlabel: str, ylabel: str) -> None:
    """
    :param axes: to be labelled, and to lose the frame on top and on the right
    :param xlabel: what x is
    :param ylabel: what y is
    """
    axes.set_xlabel(xlabel, fontsize=11)
    axes.set_ylabel(ylabel, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)


def finish(figure: Figure, path: str | Path | None) -> Figure:
    """
    :param figure: a figure that is complete
    :param path: file to save it to; missing folders are made
    :return: the figure
    """
    if path is not None:
        save_figure(figure, path)
    return figure


def save_figure(figure: Figure, path: str | Path, dpi: int = DPI) -> Path:
    """
    :param figure: a figure that is complete
    :param path: file, written whole or not at all, in the format of its suffix; ".png" is added where there is none
    :param dpi: dots per inch
    :return: the file
    :raises ValueError: if the suffix is of no format
    """
    path = with_suffix(path, ".png")
    return save_whole(path, lambda file: figure.savefig(cast(Any, file), dpi=dpi, format=path.suffix[1:].lower()))
