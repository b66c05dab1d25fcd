"""Figures of who is served by whom, and what groups are worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from benchmarks.figures import tables
from benchmarks.figures.data import read_rows
from benchmarks.figures.groups import largest_group, targets_of, worth_of_groups
from benchmarks.figures.histograms import by_speed, last_assignments, plot_histograms
from benchmarks.figures.plan import read_sweeps
from tests.test_figures import CHEETAH, HALFCHEETAH, cheetah_rows, figure2_rows, folder, row, sweep_of, write

__all__ = ["folder"]  # a fixture


def test_histograms(folder: Path) -> None:
    (folder / "sweeps" / "figure3_halfcheetah.yml").write_text(HALFCHEETAH, encoding="utf-8")
    write(folder / "results" / "figure3_halfcheetah.csv", cheetah_rows()[:1])
    sweep = read_sweeps(folder / "sweeps", folder / "results")[0]["figure3_halfcheetah"]
    rows, planned = last_assignments([sweep], CHEETAH)
    assert list(rows) == ["episodes"] and planned == 2
    targets = targets_of(rows["episodes"])
    assert targets.shape == (100,) and 0 <= targets.min() and targets.max() < 4
    (axes,) = plot_histograms({"HalfCheetah": (rows, planned)}).axes
    assert axes.get_title() == "episodes" and axes.get_ylabel() == "HalfCheetah\nagents\n1 of 2 algorithms"
    areas: dict[Any, float] = {}
    for bar in axes.patches:
        areas[bar.get_facecolor()] = areas.get(bar.get_facecolor(), 0.0) + bar.get_height()
    assert sorted(areas.values()) == [20.0] * 5  # agents per representative


def test_what_groups_are_worth(folder: Path) -> None:
    """By hand: within its window, a twentieth of 4 m/s, an agent loses in proportion to its distance."""
    targets = [1.0, 1.1, 2.0, 3.0, 3.05]
    facts = dict(env=CHEETAH, env_kwargs=json.dumps({"targets": targets, "max_velocity": 4.0}), k=4, n_agents=5)
    worth = {}
    for groups in ("0 0 1 2 2", "1 1 1 1 1", "0 1 2 3 0"):  # the first leaves one representative without agents
        (read,) = read_rows(write(folder / "results" / "own.csv", [row(representatives=groups, **facts)]))
        worth[groups] = worth_of_groups(read), largest_group(read)
    assert worth["0 0 1 2 2"] == (pytest.approx((150 + 100 + 175) / 5), 2)
    assert worth["1 1 1 1 1"] == (pytest.approx(175 / 5), 5)
    assert worth["0 1 2 3 0"] == (pytest.approx((100 + 100 + 100 + 100) / 5), 2)
    assert targets_of(read).tolist() == targets

    (read,) = read_rows(write(folder / "results" / "own.csv", [row()]))
    assert worth_of_groups(read) is None
    with pytest.raises(ValueError, match="ResourceGathering-v0 is no velocity task"):
        targets_of(read)


def test_runs_one_by_one(folder: Path) -> None:
    table = tables.runs(sweep_of(folder, figure2_rows())).splitlines()
    head = "environment | k | n | algorithm | seeds | stochastic | deterministic | if agents chose | best speeds for groups"
    assert table[0] == f"| {head} | largest group |"
    told = "88.00, 89.00, 87.50 | 88.50, 89.50, 88.00 | 82.00, 82.00, 82.00 | - | 10, 10, 10"
    assert table[3] == f"| ResourceGathering | 3 | 25 | episodes | 0, 1, 2 | {told} |"
    (folder / "sweeps" / "figure3_halfcheetah.yml").write_text(HALFCHEETAH, encoding="utf-8")
    write(folder / "results" / "figure3_halfcheetah.csv", cheetah_rows()[:1])
    sweep = read_sweeps(folder / "sweeps", folder / "results")[0]["figure3_halfcheetah"]
    (line,) = tables.runs(sweep).splitlines()[2:]
    worth = worth_of_groups(read_rows(folder / "results" / "figure3_halfcheetah.csv")[0])
    assert worth is not None and worth <= 36.46 and line.endswith(f" | {worth:.2f} | 20 |")


def test_groups_are_ordered_by_speed() -> None:
    targets = np.array([3.0, 0.1, 2.9, 0.2, 2.5, 3.1])
    # Representative 3 serves nobody; by the median and not the mean, one slow agent does not make a group slow
    assert by_speed(np.array([0, 4, 0, 0, 2, 1]), targets).tolist() == [2, 0, 2, 2, 1, 3]


@pytest.mark.parametrize("columns", [1, 2, 3, 5])
def test_the_legend_of_histograms_is_not_cut_off(folder: Path, columns: int) -> None:
    (folder / "sweeps" / "figure3_halfcheetah.yml").write_text(HALFCHEETAH, encoding="utf-8")
    write(folder / "results" / "figure3_halfcheetah.csv", cheetah_rows()[:1])
    rows, _ = last_assignments([read_sweeps(folder / "sweeps", folder / "results")[0]["figure3_halfcheetah"]], CHEETAH)
    figure = plot_histograms({"HalfCheetah": ({f"{index}": rows["episodes"] for index in range(columns)}, columns)})
    FigureCanvasAgg(figure).draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
