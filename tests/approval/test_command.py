"""The command sb3-rmdp report: the numbers of evaluate, a file, and one line for wrong input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rmdp import RepresentedPPO, cli
from tests.approval.pages import Page
from tests.approval.probes import SMALL, make_model

GRID = "rmdp/ResourceGathering-v0"
SHAPE = ["--env-kwargs", "shape:(3, 3)", "--env-kwargs", "home:(2, 1)"]
QUICK = ["--episodes", 3, "--seeds", 2, "--device", "cpu"]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model.zip"
    make_model(make_vec_env(GRID, 2, env_kwargs=dict(shape=(3, 3), home=(2, 1))), [0, 1, 1] * 3).save(path)
    return path


def test_the_numbers_of_evaluate(model: Path, tmp_path: Path) -> None:
    output, numbers = tmp_path / "report.html", tmp_path / "numbers.json"
    done = invoke("report", model, "-o", output, "--env", GRID, *SHAPE, *QUICK, "--stochastic", "--json", numbers)
    assert done.exit_code == 0, done.output
    assert f"Wrote {output}, {output.stat().st_size / 1000:.0f} kB: social welfare" in done.stdout
    found = json.loads(numbers.read_text())
    for seed, one in zip((0, 1), found["by_seed"], strict=True):
        options = ["--env", GRID, *SHAPE, "--episodes", 3, "--seed", seed, "--stochastic", "--device", "cpu", "--json", "-"]
        expected = json.loads(invoke("evaluate", model, *options).stdout)
        for name in ("utilities", "utilities_standard_error", "assignment", "social_welfare", "standard_error", "optimum"):
            assert one[name] == expected[name]
    assert found["result"]["social_welfare"] == np.mean([one["social_welfare"] for one in found["by_seed"]])
    page = Page.read(output)
    settings = dict(page.tables["Arguments of RepresentedPPO"][1:])
    assert settings["learning_rate"] == "0.0003"  # and not what evaluation puts in its place
    facts = dict(row[:2] for row in page.tables["Environment, agents and training"])
    assert facts["Model file"].startswith("model.zip, ") and "sampled actions" in page.text


def test_what_can_be_left_out(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("report", model, "--env", GRID, *SHAPE, *QUICK, "--no-stress", "--no-frames", "--title", "Mine")
    assert done.exit_code == 0, done.output
    page = Page.read(tmp_path / "report.html")
    assert "Mine" in page.text and "likeliest actions" in page.text
    assert "observation noise" not in page.text and not [image for image in page.all("img") if "after" in image["alt"]]


def test_in_a_run_folder(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("rl_zoo3")
    import yaml

    settings = tmp_path / "rmdp-ResourceGathering-v0"
    settings.mkdir()
    env = VecNormalize(make_vec_env(GRID, 2, env_kwargs=dict(shape=(3, 3), home=(2, 1))), norm_reward=False)
    RepresentedPPO("MlpPolicy", env, k=2, **SMALL).learn(64).save(tmp_path / "best_model.zip")
    env.save(str(settings / "vecnormalize.pkl"))
    config = dict(policy="MlpPolicy", k=2, normalize="dict(norm_obs=True)", env_kwargs=dict(shape=[3, 3], home=[2, 1]))
    (settings / "config.yml").write_text(yaml.dump(config))
    (settings / "args.yml").write_text(yaml.dump(dict(env=GRID, env_kwargs=None)))
    done = invoke("report", tmp_path / "best_model.zip", "-o", tmp_path / "report.html", *QUICK)
    assert done.exit_code == 0, done.output
    page = Page.read(tmp_path / "report.html")
    assert "normalised by VecNormalize" in page.text and "No pictures" not in page.text


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ([], ["add --env"]),
        (["--env", "rmdp/ResourceGatherin-v0"], ["is not registered", f"did you mean {GRID}"]),
        (["--env", GRID], ["n_agents=25, the model was made for 9"]),
        (["--env", GRID, *SHAPE, "--episodes", "0"], ["0"]),
        (["--env", GRID, *SHAPE, "--seeds", "0"], ["0"]),
        (["--env", GRID, *SHAPE, "--env-kwargs", "seven"], ["'seven' is no name:value"]),
        (["--env", GRID, *SHAPE, "-o", "{file}/report.html"], ["cannot be written", "is no folder"]),
        (["--env", GRID, *SHAPE, "--json", "{file}/numbers.json"], ["cannot be written", "is no folder"]),
    ],
)
def test_wrong_options(model: Path, options: list[str], texts: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    given = [option.format(file=tmp_path / "file") for option in options]
    assert_bad_input(invoke("report", model, *(() if "-o" in given else ("-o", tmp_path / "report.html")), *given), *texts)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_unreadable_models(model: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.zip").write_bytes(model.read_bytes()[:5000])
    (tmp_path / "text.zip").write_text("no zip file")
    for name, text in {"missing.zip": "there is no model file", "cut.zip": "complete zip", "text.zip": "complete zip"}.items():
        done = invoke("report", tmp_path / name, "--env", GRID, "-o", tmp_path / "report.html")
        assert_bad_input(done, text, name)
    assert_bad_input(invoke("report", tmp_path, "-o", tmp_path / "report.html"), "is a folder")
    assert not (tmp_path / "report.html").exists()


def assert_bad_input(result: Result, *texts: Any) -> None:
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert all(text in line for text in texts), line
    assert "Traceback" not in result.output and result.stdout == ""


def test_help() -> None:
    done = invoke("report", "--help")
    assert done.exit_code == 0 and "sb3-rmdp report model.zip --env" in done.stdout and "--no-stress" in done.stdout
    assert "\n  report " in invoke("--help").stdout
