"""The examples run, with a small budget, and leave what they promise."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import gymnasium as gym
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
FILES = {
    "resource_gathering": {"model.zip", "tours.png", "assignment.png", "tensorboard"},
    "half_cheetah": {"model.zip", "assignment.png"},
    "own_environment": {"model.zip"},
    "preferences": {"model.zip"},
    "from_training_to_service": {
        *(f"k{k}_seed1.{suffix}" for k in (1, 2) for suffix in ("zip", "json")),
        *("budget.json", "budget.png", "report.html", "service", "episodes.npz"),
    },
}
#: What keeps them short, beside a small budget
SHORT = {"from_training_to_service": ["--k", "1", "2", "--episodes", "2"]}


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run is the first to register the ids of its example: gymnasium warns of a second one."""
    monkeypatch.delitem(gym.registry, "Thermostat-v0", raising=False)


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(FILES)


# SB3's progress bar is one that tqdm calls experimental
@pytest.mark.filterwarnings("ignore:rich is experimental")
@pytest.mark.parametrize("name", FILES)
def test_example(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    main(["--timesteps", "1000", "--seed", "1", "--out", str(out), *SHORT.get(name, [])])
    assert {path.name for path in out.iterdir()} == FILES[name]
    assert re.search(r"social welfare \d+\.\d+ (\+-|±) \d+\.\d+", capsys.readouterr().out)


@pytest.mark.parametrize("name", FILES)
def test_example_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    help_text = capsys.readouterr().out
    assert all(option in help_text for option in ("--timesteps", "--seed", "--out"))
