"""The command sb3-rmdp budget: the same numbers as the call, files, resumption, and one line for wrong input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sb3_rmdp import RepresentedPPO, budget, cli
from sb3_rmdp.budget import BudgetCurve, budget_curve

ENV_ID = "rmdp/ResourceGathering-v0"
#: Settings of a training that is over soon, and of k for which the optimum is known at once
SMALL = [
    "-p",
    "n_steps:16",
    "-p",
    "batch_size:16",
    "-p",
    "n_epochs:1",
    "--device",
    "cpu",
    "--transitions",
    "1_6",
    "--episodes",
    "2",
]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, ["budget", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, and the files of their curve."""
    pytest.importorskip("matplotlib")
    path = tmp_path_factory.mktemp("budget") / "how_many"
    result = invoke(ENV_ID, "-k", 4, 5, *SMALL, "--out", path)
    assert result.exit_code == 0, result.output
    assert "next policy" in result.stdout and "a policy more is worth" in result.stdout
    assert [line.removeprefix("Wrote ") for line in result.stderr.splitlines()] == [
        str(path / "budget.json"),
        str(path / "budget.png"),
    ]
    return path


def assert_bad_input(result: Result, *texts: str) -> None:
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert all(text in line for text in texts), line
    assert "Traceback" not in result.output and result.stdout == ""


def test_it_is_the_call(folder: Path) -> None:
    kwargs: dict[str, Any] = dict(n_steps=16, batch_size=16, n_epochs=1, device="cpu")
    expected = budget_curve(ENV_ID, (4, 5), 16, n_eval_episodes=2, model_kwargs=kwargs)
    found = BudgetCurve.load(folder / "budget.json")
    assert found.points == expected.points and found.settings == expected.settings
    assert [row.transitions_in_total for row in found.rows] == [64, 64 + 80]
    assert (folder / "budget.png").read_bytes().startswith(b"\x89PNG")
    names = ["budget.json", "budget.png", "k4_seed0.json", "k4_seed0.zip", "k5_seed0.json", "k5_seed0.zip"]
    assert sorted(path.name for path in folder.iterdir()) == names


@pytest.mark.parametrize("ks", [["-k", "4,5"], ["-k", 4, "-k", 5], ["--k", "4", "5"]])
def test_finished_models_are_not_trained_again(folder: Path, ks: list, monkeypatch: pytest.MonkeyPatch) -> None:
    def learn(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(RepresentedPPO, "learn", learn)
    result = invoke(*ks, ENV_ID, *SMALL, "--out", folder, "--json", "-", "--no-plot")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((folder / "budget.json").read_text())


def test_models_of_a_folder(folder: Path, tmp_path: Path) -> None:
    result = invoke(
        "--models", *sorted(folder.glob("*.zip")), "--env", ENV_ID, "--episodes", 2, "--json", tmp_path / "new.json"
    )
    assert result.exit_code == 0, result.output
    found, trained = BudgetCurve.load(tmp_path / "new.json"), BudgetCurve.load(folder / "budget.json")
    assert found.rows == trained.rows and found.points == trained.points
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.json"]
    assert "over episodes of one model" in " ".join(result.stdout.split())


def test_control_c_leaves_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learn = RepresentedPPO.learn

    def interrupted(self: RepresentedPPO, *args: Any, **kwargs: Any) -> RepresentedPPO:
        if self.k == 5:
            raise KeyboardInterrupt
        return learn(self, *args, **kwargs)

    monkeypatch.setattr(RepresentedPPO, "learn", interrupted)
    result = invoke(ENV_ID, "-k", 4, 5, *SMALL, "--out", tmp_path)
    assert result.exit_code == 130 and f"Finished models are in {tmp_path}" in result.stderr
    assert (tmp_path / "k4_seed0.zip").exists() and not (tmp_path / "k5_seed0.zip").exists()


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ([], ["no environment to train in", "--models"]),
        ([ENV_ID, "-k", "two"], ["'two' is no number of policies", "-k 1 2 3 5"]),
        ([ENV_ID, "-k", 3, 2], ["k=(3, 2) does not rise"]),
        ([ENV_ID, "-k", 1, 26], ["k=26 representatives for n_agents=25"]),
        (["rmdp/ResourceGatherin-v0"], ["is not registered", f"did you mean {ENV_ID}"]),
        (["CartPole-v1"], ["no attribute n_agents"]),
        ([ENV_ID, "--env", "CartPole-v1"], ["two environments"]),
        ([ENV_ID, "-p", "gama:0.9"], ["'gama', which RepresentedPPO does not know"]),
        ([ENV_ID, "-p", "assignment:fixed"], ["'fixed' cannot grow"]),
        ([ENV_ID, "--env-kwargs", "colour:1"], ["colour"]),
        ([ENV_ID, "--device", "nowhere"], ["device='nowhere'"]),
        ([ENV_ID, "--transitions", 0], ["--transitions"]),
        (["--models", "a.zip", "-k", 3, "--cold"], ["leave out -k, --cold"]),
        (["--models", "a.zip", "b.zip", "--env", ENV_ID], ["there is no model file a.zip"]),
        (["--models", __file__, "--env", ENV_ID], [f"{__file__} is not a complete zip file"]),
    ],
)
def test_wrong_options(options: list, texts: list[str], tmp_path: Path) -> None:
    assert_bad_input(invoke(*options, "--out", tmp_path / "new"), *texts)
    assert not (tmp_path / "new").exists()


def test_another_folder_other_agents_and_no_folder(folder: Path, tmp_path: Path) -> None:
    other = [*SMALL[:-3], "32", *SMALL[-2:]]
    assert_bad_input(invoke(ENV_ID, "-k", 4, 5, *other, "--out", folder), "transitions_per_policy=16, and 32 is asked for")
    models = sorted(folder.glob("*.zip"))
    assert_bad_input(invoke("--models", *models), "lies in no run folder", "add --env")
    home = ["--env-kwargs", "home:(0, 0)"]
    assert_bad_input(invoke("--models", *models, "--env", ENV_ID, *home), "the population", "home0,0")


def test_pictures_need_matplotlib_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError('pictures need matplotlib: pip install "sb3_rmdp[plots]"')

    monkeypatch.setattr(budget.curve, "check_can_plot", missing)
    assert_bad_input(invoke(ENV_ID, *SMALL, "--out", tmp_path), 'pip install "sb3_rmdp[plots]"')
    assert not list(tmp_path.iterdir())
    result = invoke(ENV_ID, "-k", 5, *SMALL, "--out", tmp_path, "--no-plot")
    assert result.exit_code == 0 and not list(tmp_path.glob("*.png"))


def test_help() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for word in ("--transitions", "--models", "-k 1 2 3 5", "Ctrl-C"):
        assert word in result.stdout
