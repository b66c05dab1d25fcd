"""Model cards of run folders: the right model, its true numbers, and code that runs."""

from __future__ import annotations

import json
import re
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from click.testing import CliRunner
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

import sb3_rmdp
from sb3_rmdp import RepresentedPPO, WelfareEvaluation, cli, evaluate_welfare
from tests.probes import Drift, time_limited

pytest.importorskip("rl_zoo3")
import yaml
from huggingface_hub import ModelCard

from sb3_rmdp.zoo import model_card
from sb3_rmdp.zoo.model_card import write_model_card
from sb3_rmdp.zoo.run_folder import find_run_folder, read_run_folder

GRID = "rmdp/ResourceGathering-v0"
#: A grid of nine agents, which is not the default
KWARGS = {"shape": [3, 3], "home": [2, 1]}
SMALL: dict[str, Any] = dict(n_steps=32, batch_size=32, n_epochs=1, device="cpu", normalize_observations=False)


class Crowd(Drift):
    """Agents with a target each, like those of the velocity tasks."""

    targets = np.array([0.5, 1.0, 2.0])


def make_crowd() -> gym.Env:
    return time_limited(Crowd())


@pytest.fixture(scope="module", autouse=True)
def registered_crowd() -> Any:
    gym.register("probe/Crowd-v0", entry_point=make_crowd)
    yield
    del gym.registry["probe/Crowd-v0"]


def save_settings(folder: Path, env_id: str, config: dict[str, Any], **arguments: Any) -> Path:
    """
    Write what RL Zoo writes at the start of a training.

    :param folder: the run folder
    :param env_id: environment
    :param config: hyperparameters
    :param arguments: command line
    :return: folder of the settings
    """
    settings = folder / env_id.replace("/", "-")
    settings.mkdir(parents=True)
    (settings / "config.yml").write_text(yaml.dump(OrderedDict(sorted(config.items()))))
    (settings / "args.yml").write_text(yaml.dump(OrderedDict(env=env_id, env_kwargs=None, **arguments)))
    (settings / "command.txt").write_text(f"/home/somebody/.venv/bin/python -m sb3_rmdp.zoo train --algo rppo --env {env_id}")
    return settings


def grid_run(folder: Path) -> Path:
    """A run of Resource Gathering with a last model, with an evaluation before it but no best model."""
    env = make_vec_env(GRID, 2, env_kwargs=KWARGS)
    model = RepresentedPPO("MlpPolicy", env, k=2, assignment="random", seed=4, **SMALL).learn(64)
    model.save(folder / "rmdp-ResourceGathering-v0")
    save_settings(folder, GRID, dict(policy="MlpPolicy", n_timesteps=64, k=2, env_kwargs=KWARGS))
    np.savez(folder / "evaluations.npz", timesteps=[32, 64], results=[[1.0, 2.0], [41.0, 42.5]])
    return folder


def evaluate_in_grid(path: Path, deterministic: bool) -> WelfareEvaluation:
    """The evaluation that a card of a grid run should show."""
    model = RepresentedPPO.load(path, device="cpu")
    env = make_vec_env(GRID, model.k, seed=0, env_kwargs=KWARGS)
    set_random_seed(0)
    return evaluate_welfare(model, env, 4, deterministic)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = grid_run(tmp_path_factory.mktemp("logs") / "rppo" / "rmdp-ResourceGathering-v0_1")
    assert write_model_card(folder, 4) == folder / "model_card.md"
    return folder


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def rows(text: str) -> list[list[str]]:
    """All cells of the card's tables."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_numbers_are_those_of_evaluate_welfare(grid: Path) -> None:
    cells = rows((grid / "model_card.md").read_text())
    for name, deterministic in (("likeliest", True), ("sampled", False)):
        result = evaluate_in_grid(grid / "rmdp-ResourceGathering-v0.zip", deterministic)
        assert result.social_welfare > 0.0 or deterministic  # sampled tours come home now and then
        assert result.half_utilities is not None
        even, odd = result.half_utilities[:, np.arange(9), result.assignment]
        assert [
            name,
            f"{result.social_welfare:.2f} +- {result.standard_error:.2f}",
            f"{odd[even.argmin()]:.2f} (agent {even.argmin()})",
            f"{100 * result.social_welfare / result.optimum:.1f} %" if result.optimum else "",
        ] in cells
        if not deterministic:
            continue
        for j in range(2):
            own = result.utilities[result.assignment == j, j]
            (row,) = [row for row in cells if row[0] == str(j)]
            assert row[1:3] == [str(len(own)), f"{own.mean():.2f}"] and row[-1] == f"{result.utilities[:, j].mean():.2f}"


def test_facts_curve_and_training(grid: Path) -> None:
    text = (grid / "model_card.md").read_text()
    cells = rows(text)
    for row in (
        ["environment", f"`{GRID}`"],
        ["its `shape`", "`[3, 3]`"],
        ["agents (users)", "9"],
        ["representatives (policies)", "2"],
        ["assignment", "`random`"],
        ["transitions until this model", "64 in total, 32 per policy"],
        ["seed of the training", "4"],
        ["32", "1.50"],
        ["64", "41.75"],
    ):
        assert row in cells
    assert "share of the optimum" in text and "10.1609/aaai.v38i11.29169" in text
    assert yaml.safe_load(blocks(text, "yaml")[0])["policy"] == "MlpPolicy"
    assert f"python -m sb3_rmdp.zoo train --algo rppo --env {GRID}" in text and "/home/somebody" not in text


def test_the_hub_can_read_the_head(grid: Path) -> None:
    card = ModelCard.load(grid / "model_card.md")
    result = evaluate_in_grid(grid / "rmdp-ResourceGathering-v0.zip", True)
    (metric,) = card.data.eval_results
    data = card.data.to_dict()
    assert data["library_name"] == "stable-baselines3" and GRID in data["tags"]
    assert (card.data.model_name, metric.dataset_name, metric.metric_type) == ("RepresentedPPO", GRID, "social_welfare")
    assert metric.metric_value == f"{result.social_welfare:.2f} +/- {result.standard_error:.2f}"


def test_code_on_the_card_runs(grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks((grid / "model_card.md").read_text(), "python")
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    assert capsys.readouterr().out.startswith("social welfare ")
    assert namespace["env"].get_attr("shape") == [(3, 3)] and namespace["model"].k == 2


def test_the_command_on_the_card_runs(grid: Path) -> None:
    (command,) = [line for block in blocks((grid / "model_card.md").read_text(), "bash") for line in block.splitlines()][:1]
    words = command.split()
    assert words[:2] == ["sb3-rmdp", "evaluate"]
    done = CliRunner().invoke(cli.main, [*words[1:], "--json", "-", "--episodes", "4", "--stochastic"])
    assert done.exit_code == 0, done.output
    found, expected = json.loads(done.stdout), evaluate_in_grid(Path(words[2]), False)
    np.testing.assert_array_equal(found["utilities"], expected.utilities)
    assert found["env"] == GRID and found["env_kwargs"] == KWARGS


def test_arguments_on_the_command_line_change_those_of_the_run(grid: Path) -> None:
    model = grid / "rmdp-ResourceGathering-v0.zip"
    other_home = CliRunner().invoke(cli.main, ["evaluate", str(model), "--env-kwargs", "home:(0,0)"])
    assert other_home.exit_code == 2 and "resource-gathering-3x3-home0,0" in other_home.stderr
    # Another environment has nothing to do with the run
    other_env = CliRunner().invoke(cli.main, ["evaluate", str(model), "--env", "probe/Crowd-v0"])
    assert other_env.exit_code == 2 and "n_agents=3, the model was made for 9" in other_env.stderr


@pytest.mark.parametrize("name", ["assignment.png", "tours.png"])
def test_pictures(grid: Path, name: str) -> None:
    assert f"]({name})" in (grid / "model_card.md").read_text()
    assert (grid / name).read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_a_card_has_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sb3_rmdp, "plots", raising=False)
    monkeypatch.setitem(sys.modules, "sb3_rmdp.plots", None)
    text = write_model_card(grid_run(tmp_path), 1).read_text()
    assert "## Representatives" in text and ".png" not in text and not list(tmp_path.glob("*.png"))


def test_the_command_card(tmp_path: Path) -> None:
    folder = grid_run(tmp_path / "run")
    done = CliRunner().invoke(cli.main, ["card", str(folder), "--episodes", "1"])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"Wrote {folder / 'model_card.md'}\n"


def test_the_best_model_goes_before_the_last(tmp_path: Path) -> None:
    folder = grid_run(tmp_path)
    RepresentedPPO("MlpPolicy", make_vec_env(GRID, 1, env_kwargs=KWARGS), k=3, **SMALL).save(folder / "best_model")
    write_model_card(folder, 1)
    assert ["representatives (policies)", "3"] in rows((folder / "model_card.md").read_text())


def test_a_card_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = grid_run(tmp_path)
    (folder / "model_card.md").write_text("old")
    monkeypatch.setattr(model_card, "_training", lambda run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_model_card(folder, 1)
    assert (folder / "model_card.md").read_text() == "old"


def test_statistics_and_stacked_frames_are_those_of_the_training(tmp_path: Path) -> None:
    normalized = VecNormalize(make_vec_env("probe/Crowd-v0", 2, seed=0), norm_reward=False)
    model = RepresentedPPO("MlpPolicy", VecFrameStack(normalized, 2), k=2, **SMALL).learn(64)
    model.save(tmp_path / "probe-Crowd-v0")
    config = dict(normalize="dict(norm_obs=True, norm_reward=False)", frame_stack=2)
    settings = save_settings(tmp_path, "probe/Crowd-v0", config)
    normalized.save(str(settings / "vecnormalize.pkl"))

    run = read_run_folder(tmp_path)
    env, same = run.make_env(), run.make_env(statistics=settings / "vecnormalize.pkl")
    for stacked in (env, same):
        assert isinstance(stacked, VecFrameStack) and isinstance(stacked.venv, VecNormalize)
        assert not stacked.venv.training and not stacked.venv.norm_reward
        np.testing.assert_array_equal(stacked.venv.obs_rms.mean, normalized.obs_rms.mean)  # type: ignore[union-attr]
    text = write_model_card(tmp_path, 2).read_text()
    result = evaluate_welfare(model, env, 2)
    assert f"| likeliest | {result.social_welfare:.2f} +- " in text
    assert "share of" not in text and "tours.png" not in text  # this environment knows no bound, and is no grid
    assert "![Agents by target and representative](assignment.png)" in text
    (code,) = blocks(text, "python")
    exec(code, {})

    (settings / "vecnormalize.pkl").unlink()
    with pytest.raises(ValueError, match=r"vecnormalize\.pkl, are not there"):
        read_run_folder(tmp_path).make_env()


def test_arguments_of_the_training_replace_those_of_the_configuration(tmp_path: Path) -> None:
    settings = save_settings(tmp_path, GRID, dict(env_kwargs=KWARGS))
    assert read_run_folder(tmp_path).env_kwargs == KWARGS
    (settings / "args.yml").write_text(yaml.dump(OrderedDict(env=GRID, env_kwargs=dict(max_episode_steps=9))))
    assert read_run_folder(tmp_path).env_kwargs == dict(max_episode_steps=9)
    (settings / "args.yml").unlink()  # the id can be guessed from the name of the folder
    run = read_run_folder(tmp_path)
    assert (run.env_id, run.env_kwargs) == (GRID, KWARGS)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        write_model_card(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"no run folder of RL Zoo, since it holds no folder with a config\.yml"):
        write_model_card(tmp_path)
    assert find_run_folder(tmp_path / "model.zip") is None
    settings = save_settings(tmp_path, GRID, {})
    assert find_run_folder(tmp_path / "model.zip") == tmp_path
    with pytest.raises(FileNotFoundError, match=r"neither best_model\.zip nor rmdp-ResourceGathering-v0\.zip"):
        write_model_card(tmp_path)
    (settings / "args.yml").unlink()
    settings.rename(tmp_path / "unknown-v0")
    with pytest.raises(ValueError, match=r"no args\.yml that names the environment"):
        write_model_card(tmp_path)
    save_settings(tmp_path, GRID, {})
    with pytest.raises(ValueError, match="holds 2 folders"):
        write_model_card(tmp_path)


def test_without_rl_zoo_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_settings(tmp_path, GRID, {})
    monkeypatch.setitem(sys.modules, "rl_zoo3", None)
    with pytest.raises(ImportError, match=r"pip install 'sb3_rmdp\[zoo\]'"):
        read_run_folder(tmp_path)
