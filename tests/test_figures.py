"""Figures and tables of the paper are made of results as they are, and say what is missing."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from dataclasses import replace
from math import sqrt
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks.figures import tables
from benchmarks.figures.__main__ import main
from benchmarks.figures.cost import Cost, costs
from benchmarks.figures.data import BadResults, read_rows
from benchmarks.figures.pictures import plot_learning, plot_welfare
from benchmarks.figures.plan import Sweep, read_sweeps
from benchmarks.figures.statistics import holm, mean_and_error, paired
from sb3_rmdp.sweep.config import read_sweep
from sb3_rmdp.sweep.results import COLUMNS

GRID, CHEETAH = "rmdp/ResourceGathering-v0", "rmdp/HalfCheetahVelocity-v0"

FIGURE2 = f"""
name: figure2
environments: [{GRID}]
k: [1, 3]
algorithms: [episodes, em, random]
seeds: 3
transitions_per_policy: 2000
checkpoints: [1000, 2000]
n_eval_episodes: 2
once: [1]
results: somewhere/figure2.csv
"""

HALFCHEETAH = f"""
name: figure3_halfcheetah
environments: [{CHEETAH}]
k: [5]
n: [100]
algorithms: [episodes, em]
seeds: 1
transitions_per_policy: 2000
checkpoints: [2000]
n_eval_episodes: 1
results: figure3_halfcheetah.csv
"""


def ids(text: str) -> dict[tuple[int, str, int], str]:
    """Ids of runs by k, algorithm and seed."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "sweep.yml")
        path.write_text(text, encoding="utf-8")
        return {(run.k, run.algorithm, run.seed): run.id for run in read_sweep(path).runs}


IDS = ids(FIGURE2) | ids(HALFCHEETAH)


def row(**given: Any) -> dict[str, Any]:
    """A row of results, with whatever differs from a usual one."""
    usual = dict(schema="1", sweep="figure2", env=GRID, env_kwargs="{}", k=3, n_agents=25, algorithm="em", model="{}", seed=0)
    usual |= dict(transitions_per_policy=2000, checkpoints=1, stochastic=80.0, deterministic=81.0, stochastic_greedy=82.0)
    usual |= dict(bound=89.28, seconds=60.0, versions="{}")
    usual |= dict(representatives=" ".join(["0", "1", "2", "0", "1"] * 5)) | given
    facts = usual["k"], usual["algorithm"], usual["seed"]
    return {"run": IDS.get(facts, f"other-{facts}"), **usual}


def write(path: Path, rows: list[dict[str, Any]], columns: tuple[str, ...] = COLUMNS) -> Path:
    counts = Counter(row["run"] for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | {"checkpoints": counts[row["run"]]} for row in rows)
    return path


#: Welfare by algorithm and seed after 2000 transitions, k = 3
WELFARE = {"episodes": [88.0, 89.0, 87.5], "em": [85.0, 88.5, 84.0], "random": [60.0, 61.0, 59.0]}


def figure2_rows() -> list[dict[str, Any]]:
    rows = []
    for checkpoint, less in ((1000, 10.0), (2000, 0.0)):
        for seed in range(3):
            value = 74.0 - seed - less
            rows.append(
                row(algorithm="episodes", k=1, seed=seed, transitions_per_policy=checkpoint, stochastic=value, bound=74.0)
            )
        for algorithm, values in WELFARE.items():
            for seed, value in enumerate(values):
                told = dict(stochastic=value - less, deterministic=value + 0.5 - less, seconds=checkpoint * 0.6)
                rows.append(row(algorithm=algorithm, seed=seed, transitions_per_policy=checkpoint, **told))
    return rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sweeps and results as in benchmarks/."""
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "sweeps" / "figure2.yml").write_text(FIGURE2, encoding="utf-8")
    return tmp_path


def sweep_of(folder: Path, rows: list[dict[str, Any]]) -> Sweep:
    write(folder / "results" / "figure2.csv", rows)
    return read_sweeps(folder / "sweeps", folder / "results")[0]["figure2"]


def draw(folder: Path, *arguments: str) -> int:
    return main(["--sweeps", str(folder / "sweeps"), "--results", str(folder / "results"), *arguments])


def test_mean_and_error() -> None:
    mean, error = mean_and_error([1.0, 2.0, 6.0])
    assert mean == 3.0 and error == pytest.approx(sqrt(7.0 / 3.0))
    assert mean_and_error([4.0]) == (4.0, None)


def test_paired_by_hand() -> None:
    """Differences 1, 2 and 3: t = 2 / (1 / sqrt(3)); with two degrees of freedom Student's distribution has a closed form."""
    result = paired({0: 2.0, 1: 4.0, 2: 6.0, 9: 100.0}, {0: 1.0, 1: 2.0, 2: 3.0, 7: -100.0})
    t = 2.0 * sqrt(3.0)
    assert (result.pairs, result.ahead, result.difference) == (3, 3, 2.0)
    assert result.p == pytest.approx(1.0 - t / sqrt(2.0 + t**2))


def test_paired_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(1.0, 1.0, 10), rng.normal(0.0, 1.0, 10)
    result = paired(dict(enumerate(first)), dict(enumerate(second)))
    assert result.p == pytest.approx(stats.ttest_rel(first, second).pvalue)


def test_pairs_in_which_the_first_has_more_are_counted() -> None:
    # One failure of the other one: the mean says much, the t-test nothing, and the pairs that it was behind in all of them
    result = paired(dict(enumerate([9.0, 9.1, 9.0, 9.1, 9.0])), dict(enumerate([8.9, 9.0, 8.9, 9.0, -90.0])))
    assert (result.pairs, result.ahead) == (5, 5) and result.p is not None and result.p > 0.3
    # Equal but for rounding is not more
    assert paired({0: 0.1 + 0.2, 1: 2.0, 2: 1.0}, {0: 0.3, 1: 1.0, 2: 2.0})[:2] == (3, 1)


def test_pairs_without_a_test() -> None:
    assert paired({0: 1.0}, {1: 1.0}) == (0, 0, None, None)
    assert paired({0: 1.0, 1: 2.0}, {1: 1.0}) == (1, 1, 1.0, None)
    assert paired({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}) == (2, 0, 0.0, 1.0)
    assert paired({0: 1.5, 1: 2.5}, {0: 1.0, 1: 2.0}) == (2, 2, 0.5, None)  # no spread, no error to judge by


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.02]) == [0.6, None, 0.04]
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_tables(folder: Path) -> None:
    sweep = sweep_of(folder, figure2_rows())
    overview = tables.overview(sweep, "stochastic").splitlines()
    assert overview[0] == "| environment | k | n | at most | paper | episodes | em | random |"
    assert overview[2] == "| ResourceGathering | 1 | 25 | 74.00 |  | 73.00 ± 0.58 (3) | as episodes | as episodes |"
    assert overview[3].endswith("above 85 | 88.17 ± 0.44 (3) | 85.83 ± 1.36 (3) | 60.00 ± 0.58 (3) |")
    details = tables.details(sweep)
    assert "| ResourceGathering | 3 | 25 | em | 1,000 | 3 of 3 | 75.83 ± 1.36 | 84.9% | 76.33 ± 1.36 | 85.5% |" in details
    assert len(details.splitlines()) == 2 + 2 * 4  # checkpoints times algorithms
    expected = [stats.ttest_rel(WELFARE["episodes"], WELFARE[rival]).pvalue for rival in ("em", "random")]
    told = tables.comparisons(sweep, [sweep.plan.tasks[1]], 2000, "stochastic")
    assert [(rival, result.pairs) for rival, result, _ in told] == [("em", 3), ("random", 3)]
    assert [result.p for _, result, _ in told] == pytest.approx(expected)
    assert [adjusted for *_, adjusted in told] == pytest.approx([expected[0], 2 * expected[1]])
    line = f"| ResourceGathering | 3 | 25 | em | 3 | +2.33 | 3 | {expected[0]:.4f} | {expected[0]:.4f} | +2.33 |"
    assert line in (tables.tests(sweep) or "")


def test_tests_need_two_pairs(folder: Path) -> None:
    sweep = sweep_of(
        folder, [row(algorithm="episodes", stochastic=88.0), row(algorithm="em"), row(algorithm="random", seed=1)]
    )
    table = (tables.tests(sweep) or "").splitlines()
    assert table[2:] == ["| ResourceGathering | 3 | 25 | em | 1 | +8.00 | 1 | - | - | +0.00 | 0 | - | - |"]
    assert tables.tests(sweep_of(folder, [row()])) is None


def test_environments_are_tested_together(folder: Path) -> None:
    """Every seed of every environment is a pair; a rival that only one of them has stands there alone."""
    robots = {"rmdp/HopperVelocity-v0": [3.0, 2.0], CHEETAH: [6.0, 7.0]}
    text = FIGURE2.replace("figure2", "robots").replace(f"[{GRID}]", f"[{', '.join(robots)}]")
    text = text.replace("[1, 3]", "[5]").replace("seeds: 3", "seeds: 2").replace("once: [1]", "n: [100]")
    (folder / "sweeps" / "robots.yml").write_text(text, encoding="utf-8")
    written = []
    for run in read_sweep(folder / "sweeps" / "robots.yml").runs:
        gain = robots[run.env_id][run.seed] if run.algorithm == "episodes" else 0.0
        facts = dict(run=run.id, sweep="robots", env=run.env_id, k=5, n_agents=100, algorithm=run.algorithm, seed=run.seed)
        if run.algorithm != "random" or run.env_id == CHEETAH:
            written.append(row(**facts, stochastic=10.0 + run.seed + gain, deterministic=10.0 + gain))
    write(folder / "results" / "robots.csv", written)
    table = tables.tests(read_sweeps(folder / "sweeps", folder / "results")[0]["robots"])
    lines = (table or "").splitlines()[2:]
    environments = [line.split(" | ")[0].lstrip("| ") for line in lines]
    assert environments == ["Hopper", "HalfCheetah", "HalfCheetah", "together"]
    p = stats.ttest_1samp([3.0, 2.0, 6.0, 7.0], 0.0).pvalue
    # Adjusted for two rivals, one of which has a row of its own
    told = f"+4.50 | 4 | {p:.4f} | {2 * p:.4f}"
    assert lines[-1] == f"| together | 5 | 100 | em | 4 | {told} | {told} |"


def test_welfare_is_drawn(folder: Path) -> None:
    figure = plot_welfare(sweep_of(folder, figure2_rows()), "stochastic")
    assert figure is not None
    (axes,) = figure.axes
    marks = {container.get_label(): container for container in axes.containers}
    assert set(marks) == {"episodes", "em", "random"}
    data, caps, _ = marks["episodes"].lines
    np.testing.assert_allclose(data.get_ydata(), [73.0, np.mean(WELFARE["episodes"])])
    errors = (caps[1].get_ydata() - caps[0].get_ydata()) / 2
    np.testing.assert_allclose(errors, [1 / sqrt(3), np.std(WELFARE["episodes"], ddof=1) / sqrt(3)])
    assert len(marks["em"].lines[0].get_ydata()) == 1
    # The lines of the others begin where one algorithm stands for all
    lines = [line.get_ydata() for line in axes.lines if line.get_linestyle() == "-" and line.get_alpha() is not None]
    assert len(lines) == 3 and all(len(line) == 2 and line[0] == 73.0 for line in lines)
    (dashes,) = [lines for lines in axes.collections if lines.get_label() == "at most"]
    assert [segment[0][1] for segment in dashes.get_segments()] == [74.0, 89.28]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "3"]
    assert axes.get_title() == "ResourceGathering"


def test_learning_is_drawn(folder: Path) -> None:
    figure = plot_learning(sweep_of(folder, figure2_rows()), "deterministic")
    assert figure is not None
    first, second = figure.axes
    assert second.get_title() == "ResourceGathering, k=3, n=25"
    curves = {line.get_label(): line.get_xydata() for line in second.lines}
    mean = np.mean(WELFARE["random"]) + 0.5
    np.testing.assert_allclose(curves["random"], [[1000, mean - 10], [2000, mean]])
    assert set(curves) == {"episodes", "em", "random", "at most"} and len(first.lines) == 2


def test_incomplete_results_are_marked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [entry for entry in figure2_rows() if entry["seed"] < 2 and entry["transitions_per_policy"] < 2000]
    sweep = sweep_of(folder, rows)
    figure = plot_welfare(sweep, "stochastic")
    assert figure is not None
    assert figure.axes[0].get_title() == "ResourceGathering\n2 of 3 seeds, 1,000 of 2,000 transitions"
    sweep = sweep_of(folder, [entry for entry in rows if entry["algorithm"] != "random"])
    assert sweep.seeds_done(sweep.plan.tasks, 1000) == "0 to 2 of 3 seeds"
    assert draw(folder) == 0
    assert "0 to 2 of 3 seeds so far" in (folder / "results" / "figures" / "tables.md").read_text(encoding="utf-8")
    assert "figure2: wrote" in capsys.readouterr().out


def test_a_k_without_results_has_no_size_to_tell(folder: Path) -> None:
    sizes = {1: 25, 3: 30}
    rows = [{**entry, "n_agents": sizes[entry["k"]]} for entry in figure2_rows()]
    for entries, labels in ((rows, ["1\nn=25", "3\nn=30"]), ([entry for entry in rows if entry["k"] == 3], ["1", "3"])):
        figure = plot_welfare(sweep_of(folder, entries), "stochastic")
        assert figure is not None
        assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == labels


def test_missing_results_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw(folder) == 0
    command = "sb3-rmdp sweep benchmarks/sweeps/figure2.yml"
    assert f"figure2: skipped, no results; run {command}\n" in capsys.readouterr().out
    text = (folder / "results" / "figures" / "tables.md").read_text(encoding="utf-8")
    assert f"No results yet; run `{command}`." in text and f"| figure2 | 0 of 12 | 0.0 | not known yet | `{command}` |" in text
    assert not list((folder / "results").rglob("*.png"))


def test_runs_that_nobody_planned_are_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Be it that a sweep got smaller, or that hyperparameters are other ones now."""
    strays = [row(k=7), row(seed=3), row(algorithm="fixed"), row(algorithm="em", k=1), row() | {"run": "of-other-hyperparams"}]
    sweep = sweep_of(folder, [*figure2_rows(), *strays])
    assert sweep.welfare(sweep.plan.tasks[1], "em", 2000, "stochastic") == dict(enumerate(WELFARE["em"]))
    assert draw(folder) == 0
    assert "figure2.csv: 5 runs left out" in capsys.readouterr().out


def test_sweeps_may_share_results(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs that are the same in both are drawn in both."""
    smaller = FIGURE2.replace("name: figure2", "name: smaller").replace("seeds: 3", "seeds: 2").replace("random]", "fixed]")
    (folder / "sweeps" / "smaller.yml").write_text(smaller, encoding="utf-8")
    write(folder / "results" / "figure2.csv", figure2_rows())
    sweeps, strays = read_sweeps(folder / "sweeps", folder / "results")
    task = sweeps["smaller"].plan.tasks[1]
    assert sweeps["smaller"].welfare(task, "em", 2000, "stochastic") == dict(enumerate(WELFARE["em"][:2]))
    assert not strays and not sweeps["smaller"].at(task, "fixed", 2000)


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([row(schema="99")], COLUMNS, "figure2.csv, line 2: .*schema '99'"),
        ([row(), row()], COLUMNS, "figure2.csv has run .* at 2000 transitions twice"),
        ([row(stochastic="good")], COLUMNS, "figure2.csv, run .*: could not convert string to float: 'good'"),
        ([row(env_kwargs="{")], COLUMNS, "figure2.csv, line 2: env_kwargs is .*, which cannot be read: fix it"),
        ([row()], COLUMNS[:-2], "figure2.csv has other columns"),
    ],
)
def test_bad_results(
    rows: list[dict[str, Any]],
    columns: tuple[str, ...],
    message: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(folder / "results" / "figure2.csv", rows, columns)
    with pytest.raises(BadResults, match=message):
        read_sweeps(folder / "sweeps", folder / "results")
    assert draw(folder) == 1
    assert re.search(message, capsys.readouterr().err)


def test_bound_may_be_unknown(folder: Path) -> None:
    (read,) = read_rows(write(folder / "results" / "figure2.csv", [row(bound="")]))
    assert read.bound is None
    assert "| - | EM" in tables.overview(sweep_of(folder, [row(bound="")]), "stochastic")


def test_same_results_same_bytes(folder: Path) -> None:
    (folder / "sweeps" / "figure3_halfcheetah.yml").write_text(HALFCHEETAH, encoding="utf-8")
    write(folder / "results" / "figure2.csv", figure2_rows())
    write(folder / "results" / "figure3_halfcheetah.csv", cheetah_rows())
    names: set[str] = set()
    for out, rows in (("one", figure2_rows()), ("two", figure2_rows()[::-1])):
        write(folder / "results" / "figure2.csv", rows)  # in whatever order runs have finished
        assert draw(folder, "--out", str(folder / out)) == 0
    for path in sorted((folder / "one").iterdir()):
        names.add(path.name)
        assert path.read_bytes() == (folder / "two" / path.name).read_bytes()
    pictures = ["figure2", "figure2_curves", "figure3_halfcheetah", "figure3_halfcheetah_curves", "figure4"]
    assert names == {"tables.md", *(f"{name}.png" for name in pictures)}
    assert b"Software" not in (folder / "one" / "figure2.png").read_bytes()


def cheetah_rows() -> list[dict[str, Any]]:
    shared = dict(env=CHEETAH, env_kwargs=json.dumps({"n_agents": 100}), k=5, n_agents=100, bound=36.46)
    groups = {"episodes": np.arange(100) // 20, "em": np.arange(100) % 5}
    return [row(algorithm=name, representatives=" ".join(map(str, group)), **shared) for name, group in groups.items()]


def test_cost(folder: Path) -> None:
    # 0.6 s per transition of three policies: 1200 s a run, and 400 s with one policy
    sweep = sweep_of(folder, [entry for entry in figure2_rows() if entry["k"] == 3 and entry["seed"] < 2])
    (told,) = costs([sweep])
    assert (told.done, told.planned) == (6, 12) and told.spent == pytest.approx(6 * 1200 / 3600)
    assert told.left == pytest.approx((3 * 400 + 3 * 1200) / 3600)
    assert costs([replace(sweep, rows={})]) == [Cost(0, 12, 0.0, None)]
    assert costs([sweep_of(folder, figure2_rows())])[0].left == 0.0
