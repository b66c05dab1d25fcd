"""Figures of a report, as images that a page can hold in itself."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image
from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp.approval.behaviour import Behaviour
from sb3_rmdp.approval.findings import Findings, half_width
from sb3_rmdp.approval.own_policy import task_of
from sb3_rmdp.envs import ResourceGatheringEnv
from sb3_rmdp.plots import palette, plot_assignment_histogram, plot_assignment_map
from sb3_rmdp.plots.assignments import draw_histogram
from sb3_rmdp.plots.style import DARK, FAINT, QUALITATIVE, label_axes, mix

#: Inches. Small, so that letters keep their size on a telephone
SIZE = (4.4, 2.7)
#: Pixels
FRAME_WIDTH = 240
#: Points of a curve at most
POINTS = 400
BINS = 24
#: The same figures give the same bytes, and letters stay letters
STYLE: dict[Any, Any] = {"svg.hashsalt": "sb3_rmdp", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10.0}


#: Of many small patches in one line
LEGEND: dict[str, Any] = dict(frameon=False, handlelength=0.9, handletextpad=0.35, columnspacing=0.9)


@dataclass(frozen=True)
class Picture:
    """
    An image for a page.

    :param uri: the image itself, as a data URI
    :param width: pixels
    :param height: pixels
    """

    uri: str
    width: int
    height: int


def frame(picture: np.ndarray) -> Picture:
    """
    :param picture: (height, width, 3) uint8
    :return: the same, small: as PNG if that is smaller (drawings), else as JPEG (renderings)
    """
    image = Image.fromarray(picture)
    if image.width > FRAME_WIDTH:
        image = image.resize((FRAME_WIDTH, max(1, round(image.height * FRAME_WIDTH / image.width))), Image.Resampling.LANCZOS)
    files: dict[str, bytes] = {}
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 80})):
        file = io.BytesIO()
        # Drawings have few colours
        (image.quantize(64) if kind == "png" else image).save(file, format=kind, **options)
        files[kind] = file.getvalue()
    kind = min(files, key=lambda name: len(files[name]))
    return Picture(_uri(f"image/{kind}", files[kind]), image.width, image.height)


def assignment_figure(findings: Findings, env: VecEnv) -> Picture | None:
    """
    :param findings: numbers
    :param env: of which it depends what can be drawn: a map, or agents by target
    :return: who is served by whom; ``None`` if there is nothing to draw it on
    """
    result, k, task = findings.result, findings.provenance.k, task_of(env)
    with rc_context(STYLE):
        if task is None:
            return None
        if isinstance(task, ResourceGatheringEnv):
            return _svg(plot_assignment_map(result.assignment, task.shape, task.home, result.utilities))
        return _svg(plot_assignment_histogram(task.targets, result.assignment, k, BINS, "target velocity, m/s"))


def utilities_figure(findings: Findings) -> Picture:
    """
    :param findings: numbers
    :return: histogram of the agents' utilities, by representative
    """
    result, k = findings.result, findings.provenance.k
    with rc_context(STYLE):
        figure, axes = _axes()
        utilities = result.agent_utilities
        draw_histogram(axes, utilities, result.assignment, np.histogram_bin_edges(utilities, BINS), palette(k))
        label_axes(axes, "utility under the own representative", "agents")
        if k <= len(QUALITATIVE):
            handles = [Patch(facecolor=colour) for colour in palette(k)]
            figure.legend(handles, [str(j) for j in range(k)], loc="outside upper center", ncols=k, **LEGEND)
        return _svg(figure)


def sorted_figure(findings: Findings) -> Picture:
    """
    :param findings: numbers
    :return: utilities of all agents from the lowest to the highest, with their confidence intervals
    """
    result = findings.result
    with rc_context(STYLE):
        figure, axes = _axes()
        order = np.argsort(result.agent_utilities, kind="stable")
        shown = np.unique(np.linspace(0, len(order) - 1, POINTS).round().astype(int))
        agents = order[shown]
        middle, half = result.agent_utilities[agents], findings.half_widths[agents, result.assignment[agents]]
        # From the left edge of the first agent to the right edge of the last
        share = np.append(0.0, (shown + 1) / len(order) * 100)
        middle, half = (np.append(values[0], values) for values in (middle, half))
        axes.fill_between(share, middle - half, middle + half, color=FAINT, linewidth=0, step="pre")
        axes.step(share, middle, where="pre", color=DARK, linewidth=1.5)
        axes.axhline(result.social_welfare, color=DARK, linestyle="--", linewidth=1)
        axes.annotate("mean", (0, result.social_welfare), xytext=(2, 3), textcoords="offset points", color=DARK)
        axes.set_xlim(0, 100)
        label_axes(axes, "% of the agents, worst off first", "utility")
        return _svg(figure)


def representative_figure(findings: Findings, j: int) -> Picture:
    """
    :param findings: numbers
    :param j: a representative
    :return: histogram of the utilities that all agents have under it, those that it serves apart
    """
    result, colour = findings.result, palette(findings.provenance.k)[j]
    with rc_context(STYLE):
        figure, axes = _axes()
        own = (result.assignment == j).astype(np.int64)
        edges = np.histogram_bin_edges(result.utilities[:, j], BINS)
        draw_histogram(axes, result.utilities[:, j], 1 - own, edges, [colour, mix(colour, 0.9, 0.85)])
        axes.legend(axes.containers[:2] if own.any() and not own.all() else axes.containers[:1], _names(own), frameon=False)
        label_axes(axes, f"utility under representative {j}", "agents")
        return _svg(figure)


def _names(own: np.ndarray) -> list[str]:
    return (["served by it"] if own.any() else []) + (["not served by it"] if not own.all() else [])


def speed_figure(behaviour: Behaviour) -> Picture:
    """
    :param behaviour: of a robot that tells its speed
    :return: speed over the steps of the episode
    """
    with rc_context(STYLE):
        figure, axes = _axes()
        steps = np.arange(1, len(behaviour.speeds) + 1)
        shown = np.unique(np.linspace(0, len(steps) - 1, 2 * POINTS).round().astype(int))
        axes.plot(steps[shown], np.array(behaviour.speeds)[shown], color=DARK, linewidth=1)
        label_axes(axes, "step", "velocity, m/s")
        return _svg(figure)


def stability_figure(findings: Findings) -> Picture:
    """
    :param findings: numbers
    :return: agents by the share of the seeds in which their own representative was the best one
    """
    seeds = len(findings.seeds)
    with rc_context(STYLE):
        figure, axes = _axes()
        counts = np.bincount((findings.own_best * seeds).round().astype(int), minlength=seeds + 1)
        bars = axes.bar(np.arange(seeds + 1), counts, color=mix((0.2, 0.13, 0.53), 1.0, 0.2), width=0.7)
        axes.bar_label(bars)
        axes.margins(y=0.15)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        label_axes(axes, f"seeds, of {seeds}, in which the own one was best", "agents")
        return _svg(figure)


def stress_figure(findings: Findings) -> Picture:
    """
    :param findings: numbers, with at least one condition that could be had
    :return: change of social welfare under each, with its confidence interval
    """
    cases = [case for case in findings.stress if not case.why_not]
    with rc_context(STYLE):
        figure = Figure(figsize=(SIZE[0], 0.8 + 0.3 * len(cases)), layout="constrained")
        axes = figure.add_subplot()
        rows = np.arange(len(cases))
        # Of a single episode there is no error, and none is drawn
        errors = half_width(np.array([case.change_error for case in cases]), findings.n_eval_episodes - 1)
        axes.axvline(0.0, color=FAINT, linewidth=1)
        axes.errorbar([case.change for case in cases], rows, xerr=errors, fmt="o", color=DARK, capsize=3, markersize=5)
        # As they are: of a user's names neither formulas nor bytes that are no text are drawn
        names = [case.name.encode(errors="backslashreplace").decode() for case in cases]
        axes.set_yticks(rows, names, parse_math=False)
        axes.set_ylim(len(cases) - 0.5, -0.5)
        label_axes(axes, "change of social welfare", "")
        return _svg(figure)


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Figure) -> Picture:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    # 96 pixels to an inch, as browsers have it
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return Picture(_uri("image/svg+xml", file.getvalue()), width, height)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
