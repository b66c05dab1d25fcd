"""What the paper's figures need beside results: tours of models, files of sweeps, and a page that shows them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.figures.__main__ import main
from benchmarks.figures.data import BadResults
from benchmarks.figures.plan import read_plan
from benchmarks.figures.tours import main as tours_main
from benchmarks.figures.tours import plot_all, read_tours
from sb3_rmdp import RepresentedPPO
from sb3_rmdp.sweep.config import read_sweep
from sb3_rmdp.sweep.results import Results
from sb3_rmdp.sweep.running import train_and_evaluate
from tests.test_figures import CHEETAH, GRID, draw

ROOT = Path(__file__).parents[1]


#: As the paper's figures 1 and 2, but for the work
TINY = f"""
name: figure1
environments: [{GRID}]
k: [1, 3]
algorithms: [em]
seeds: 1
transitions_per_policy: 128
checkpoints: [64, 128]
n_eval_episodes: 1
hyperparams: {{n_steps: 64, batch_size: 32, n_epochs: 1}}
results: ../results/figure1.csv
save_models: true
"""


def test_from_sweeps_to_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs are trained here, and not on Ray, and all else is as for the paper's figures."""
    (tmp_path / "sweeps").mkdir()
    results = tmp_path / "results"
    for name in ("figure1", "figure2"):
        config = tmp_path / "sweeps" / f"{name}.yml"
        config.write_text(TINY.replace("figure1", name), encoding="utf-8")
    sweep = read_sweep(tmp_path / "sweeps" / "figure1.yml")
    models = []
    with Results(results / "figure2.csv") as file:
        for run in sweep.runs:
            outcome = train_and_evaluate(run, with_model=True)
            file.append([{**row, "sweep": "figure2"} for row in outcome.rows])
            assert outcome.model is not None
            models.append(tmp_path / f"{run.id}.zip")
            models[-1].write_bytes(outcome.model)
    assert tours_main([*map(str, reversed(models)), "--out", str(results / "figure1.json")]) == 0
    assert draw(tmp_path) == 0
    assert "figure1_k3: wrote" in capsys.readouterr().out
    written = {path.name for path in (results / "figures").iterdir()}
    assert written == {"figure1_k1.png", "figure1_k3.png", "figure2.png", "figure2_curves.png", "tables.md"}
    text = (results / "figures" / "tables.md").read_text(encoding="utf-8")
    assert "![Tours, k = 3](figure1_k3.png)" in text
    assert "| ResourceGathering | 3 | 25 | em | 128 | 1 of 1 |" in text and "| figure2 | 2 of 2 |" in text

    content = read_tours(results / "figure1.json")
    assert [run["k"] for run in content["runs"]] == [1, 3] and content["home"] == [4, 2]
    for tours in content["runs"]:
        assert len(tours["tours"]) == tours["k"] and len(tours["assignment"]) == 25
        assert (tours["transitions_per_policy"], tours["seed"]) == (128, 0)
        # Welfare of just these tours, counted anew
        lengths = [len(tour) - 1 for tour in tours["tours"]]
        home = [tour[-1] == [4, 2] for tour in tours["tours"]]
        served = [home[j] and [*divmod(agent, 5)] in tours["tours"][j] for agent, j in enumerate(tours["assignment"])]
        returns = [(100 - lengths[j]) * served[agent] for agent, j in enumerate(tours["assignment"])]
        assert tours["welfare"] == pytest.approx(np.mean(returns)) and tours["welfare"] <= tours["bound"]
    assert {k: len(figure.axes) for k, figure in plot_all(content).items()} == {1: 1, 3: 3}


def test_tours_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = {
        "was not trained on": RepresentedPPO("MlpPolicy", CHEETAH, k=2, n_steps=64, device="cpu"),
        "pass one for each number of policies": RepresentedPPO("MlpPolicy", GRID, k=2, n_steps=64, device="cpu"),
    }
    for message, model in models.items():
        model.save(tmp_path / "model.zip")
        with pytest.raises(SystemExit):
            tours_main([str(tmp_path / "model.zip")] * 2 + ["--out", str(tmp_path / "out.json")])
        assert message in capsys.readouterr().err
    (tmp_path / "out.json").write_text('{"schema": 7}', encoding="utf-8")
    with pytest.raises(BadResults, match="schema 7"):
        read_tours(tmp_path / "out.json")


CONFIGS = sorted((ROOT / "benchmarks" / "sweeps").glob("*.yml"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_sweeps_of_the_paper(config: Path) -> None:
    plan, results = read_plan(config)
    assert plan.name == config.stem
    assert results.resolve().parent == ROOT / "benchmarks" / "results"
    # Results are where those of its kind are, or those of a sweep that has some of its runs
    others = [read_plan(other) for other in CONFIGS if other != config]
    shared = any(plan.keys.keys() & other.keys.keys() for other, file in others if file == results)
    assert plan.name.startswith(results.stem) or shared
    if not plan.name.startswith("ablations"):
        assert set(plan.algorithms) <= {"episodes", "em", "end_to_end", "clustering", "random"}


def test_runs_of_the_paper() -> None:
    plans = {config.stem: read_plan(config)[0] for config in CONFIGS}
    figure2, full, cheetah = (plans[name] for name in ("figure2", "figure3_full", "figure3_halfcheetah"))
    assert [task.k for task in figure2.tasks] == [1, 2, 3, 5, 10, 25] and figure2.algorithms[0] == "episodes"
    assert figure2.checkpoints[-1] == 1_000_000 and len(figure2.runs) == 10 * (4 * 5 + 2)
    assert [(task.k, task.n_agents) for task in full.tasks[:5]] == [(1, 100), (2, 100), (5, 100), (10, 100), (50, 1000)]
    assert {task.label for task in full.tasks} == {"HalfCheetah", "Hopper", "Walker2d", "Ant"}
    assert full.checkpoints[-1] == 2_000_000 and len(full.runs) == 10 * 4 * (4 * 5 + 1)
    assert cheetah.keys.keys() <= full.keys.keys()  # what the smaller one has run is not run again


def test_page_finds_its_tables() -> None:
    page = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    measured = (ROOT / "benchmarks" / "results" / "figures" / "tables.md").read_text(encoding="utf-8")
    marks = re.findall(r"^:(?:start-after|end-before): (.+)$", page, flags=re.MULTILINE)
    assert len(marks) == 2 * 22 and all(measured.count(f"{mark}\n") == 1 for mark in marks)
    shown = re.findall(r"!\[.*\]\((.+)\)", measured)
    assert all((ROOT / "benchmarks" / "results" / "figures" / name).exists() for name in shown)


@pytest.mark.parametrize("command", [main, tours_main])
def test_help(command: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command(["--help"])
    assert end.value.code == 0 and "benchmarks/results" in capsys.readouterr().out
