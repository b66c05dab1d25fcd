"""Training by RL Zoo's script: what a run leaves behind, and that every option does what it says."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.envs import ENV_IDS
from tests.probes import Waiting
from tests.represented_ppo.test_save_load import assert_equal_states

pytest.importorskip("rl_zoo3")
import yaml
from huggingface_sb3 import EnvironmentName
from rl_zoo3.utils import create_test_env, get_latest_run_id, get_model_path, get_saved_hyperparams, get_trained_models

from sb3_rmdp.zoo import run
from sb3_rmdp.zoo.experiment import linear_schedule
from sb3_rmdp.zoo.hyperparams import training_kwargs
from sb3_rmdp.zoo.run_folder import read_run_folder
from tests.zoo.callbacks import Recorder
from tests.zoo.running import GRID, SMALL, WAITING, enjoy, fork_workers, name_of, tensorboard, train

RECORDER = {"callback": "tests.zoo.callbacks.Recorder"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the logs of one training, which has checkpoints after 192 and 384 steps."""
    path = tmp_path_factory.mktemp("trained")
    options: dict[str, Any] = dict(seed=1, eval_freq=192, save_freq=192, tensorboard_log=path / "tb")
    train(path, params=dict(assignment_kwargs=dict(warm_start=0)), card=True, **options)
    return path


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    return folder / "logs" / "rppo" / f"{name_of(GRID)}_1"


def load(run_folder: Path, env: str = GRID) -> RepresentedPPO:
    """The last model of a run."""
    return RepresentedPPO.load(run_folder / f"{name_of(env)}.zip", device="cpu")


def parameters(model: RepresentedPPO) -> dict[str, Any]:
    return {"policy": model.policy.state_dict(), "assignment": model.assignment.state_dict()}


def rows(monitor: Path) -> list[dict[str, str]]:
    """Episodes of a file of Monitor."""
    with monitor.open() as file:
        next(file)
        return list(csv.DictReader(file))


def n_monitors(run_folder: Path) -> int:
    return len(list(run_folder.glob("*.monitor.csv")))


def test_files_of_a_run(folder: Path, trained: Path) -> None:
    settings = trained / name_of(GRID)
    for path in (trained / "best_model.zip", settings / "args.yml", settings / "command.txt", trained / "model_card.md"):
        assert path.is_file(), path
    assert load(trained).num_timesteps == 384
    with np.load(trained / "evaluations.npz") as written:
        assert written["timesteps"].tolist() == [192, 384] and written["results"].shape == (2, 6)
        means = written["results"].mean(axis=1)
    np.testing.assert_allclose(tensorboard(folder / "tb", "eval/mean_reward"), means, rtol=1e-6)
    assert "social_welfare" in (trained / "model_card.md").read_text()
    assert (settings / "command.txt").read_text().startswith("python -m sb3_rmdp.zoo train --env rmdp/ResourceGathering-v0")


def test_the_configuration_is_that_of_the_run(trained: Path) -> None:
    hyperparams, _ = get_saved_hyperparams(str(trained / name_of(GRID)))
    expected = dict(k=3, n_envs=3, gamma=1.0, learning_rate="lin_5e-4_1e-4", **SMALL)
    assert {name: hyperparams[name] for name in expected} == expected
    model = load(trained)
    assert (model.k, model.n_steps, model.batch_size, model.gamma) == (3, 64, 32, 1.0)


def test_helpers_of_rl_zoo_find_everything(folder: Path, trained: Path) -> None:
    name = EnvironmentName(GRID)
    logs = str(folder / "logs")
    assert get_latest_run_id(f"{logs}/rppo", name) == 1
    for options, file in {
        (): f"{name}.zip",
        (("load_best", True),): "best_model.zip",
        (("load_checkpoint", 192),): "rl_model_192_steps.zip",
        (("load_last_checkpoint", True),): "rl_model_384_steps.zip",
    }.items():
        _, model_path, log_path = get_model_path(0, logs, "rppo", name, **dict(options))
        assert Path(model_path) == trained / file and Path(log_path) == trained
    assert get_trained_models(logs) == {f"rppo-{name}": ("rppo", GRID)}
    hyperparams, stats_path = get_saved_hyperparams(str(trained / name))
    env = create_test_env(GRID, 2, stats_path, should_render=False, hyperparams=hyperparams, vec_env_cls=DummyVecEnv)
    model = load(trained)
    model.set_env(create_test_env(GRID, 3, should_render=False, hyperparams={}, vec_env_cls=DummyVecEnv))
    assert env.get_attr("n_agents") == [25, 25] and env.step(model.predict(env.reset())[0])[1].shape == (2,)


@pytest.mark.parametrize(
    ("options", "file"),
    [
        ([], f"{name_of(GRID)}.zip"),
        (["--load-best"], "best_model.zip"),
        (["--load-checkpoint", "192"], "rl_model_192_steps.zip"),
        (["--load-last-checkpoint"], "rl_model_384_steps.zip"),
    ],
)
def test_enjoy_loads_what_it_is_told(
    options: list[str], file: str, folder: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    enjoy(folder, *options)
    out = capsys.readouterr().out
    assert f"Loading {trained / file}\n" in out and "The mean reward is social welfare" in out and "Mean reward: " in out


@pytest.mark.parametrize(("params", "n_envs"), [({"k": 2}, 2), ({"n_envs": 7}, 7), ({}, 3)])
def test_there_are_k_environments_unless_it_is_said_how_many(params: dict[str, Any], n_envs: int, tmp_path: Path) -> None:
    run_folder = train(tmp_path, params=params, n_timesteps=1)
    assert n_monitors(run_folder) == n_envs and load(run_folder).n_envs == n_envs
    assert load(run_folder).num_timesteps == 64 * n_envs


def test_the_same_seed_makes_the_same_model(trained: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = dict(params=dict(assignment_kwargs=dict(warm_start=0)), eval_freq=192)
    again = train(tmp_path, seed=1, **options)
    assert_equal_states(parameters(load(again)), parameters(load(trained)))
    other = train(tmp_path, seed=2, **options)
    with pytest.raises(AssertionError, match="policy"):
        assert_equal_states(parameters(load(other)), parameters(load(trained)))
    assert other.name.endswith("_2")


def test_a_training_goes_on_with_the_assignment_it_had(trained: Path, tmp_path: Path) -> None:
    best = RepresentedPPO.load(trained / "best_model.zip", device="cpu")
    last = load(trained)
    for model in (best, last):
        path = tmp_path / "copy.zip"
        model.save(path)
        on = train(tmp_path, "-i", str(path), params=RECORDER, n_timesteps=192)
        saved = model.assignment.state_dict()
        assert_equal_states(Recorder.assignment, saved)
        changed = load(on).assignment.state_dict()
        assert int(changed["n_updates"]) == int(saved["n_updates"]) + 1
    assert last.assignment.state_dict()["q_table"].abs().sum() > 0.0  # or else nothing was taken over


def test_schedules_of_the_default_entry_are_in_effect(tmp_path: Path) -> None:
    run_folder = train(tmp_path, env=WAITING, params={**RECORDER, "n_steps": 8, "batch_size": 8}, n_timesteps=24 * 100)
    rates = np.array(list(Recorder.rates.values()))
    assert len(rates) == 100
    # The first update is the one after a hundredth of the training
    np.testing.assert_allclose(rates[0], [3e-4 - 2e-4 / 100, 1e-3 - 9e-4 / 100], rtol=1e-6)
    np.testing.assert_allclose(rates[49], [2e-4, 5.5e-4], rtol=1e-6)
    np.testing.assert_allclose(rates[-1], [1e-4, 1e-4], rtol=1e-6)
    model = load(run_folder, WAITING)
    assert model.policy.optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)


def test_schedules_on_the_command_line(tmp_path: Path) -> None:
    params = dict(learning_rate="lin_1e-3", ent_coef=0.02, clip_range="lin_0.3_0.1", clip_range_vf="lin_2_1")
    model = load(train(tmp_path, params=params, n_timesteps=192))
    schedules = (model.lr_schedule, model.clip_range, model.clip_range_vf)
    found = [(schedule(1.0), schedule(0.0)) for schedule in schedules]  # type: ignore[operator,misc]
    assert found == [(1e-3, 0.0), (pytest.approx(0.3), pytest.approx(0.1)), (2.0, 1.0)] and model.ent_coef == 0.02


def test_linear_schedules() -> None:
    for text, start, end in (("lin_3e-4", 3e-4, 0.0), ("lin_3e-4_1e-4", 3e-4, 1e-4), ("lin_1_2", 1.0, 2.0)):
        schedule = linear_schedule("learning_rate", text)
        assert [schedule(x) for x in (1.0, 0.5, 0.0)] == pytest.approx([start, (start + end) / 2, end])
    for text in ("lin", "lin_", "lin_a", "lin_1_2_3", "exp_1_2", "3e-4"):
        with pytest.raises(ValueError, match=f"learning_rate: '{text}' is no schedule"):
            linear_schedule("learning_rate", text)


@pytest.mark.parametrize(
    ("own", "limit", "expected"),
    [(None, None, None), (None, 0, None), (None, 7, 7), (None, "7", 7), (9, 7, 7), (5, 7, 5), (5, 0, 5), (5, None, 5)],
)
def test_the_shorter_of_two_time_limits_holds(own: int | None, limit: Any, expected: int | None) -> None:
    env_kwargs = {"n_agents": 3} if own is None else {"n_agents": 3, "max_episode_steps": own}
    before = dict(env_kwargs)
    found = training_kwargs(env_kwargs, limit)
    assert found == {"n_agents": 3, **({} if expected is None else {"max_episode_steps": expected})} and env_kwargs == before


@pytest.mark.parametrize("limit", [-1, 2.5, "two", True])
def test_time_limits_that_are_none(limit: Any) -> None:
    with pytest.raises(ValueError, match=f"max_episode_steps={limit!r}: choose a number of steps, or 0"):
        training_kwargs({}, limit)


@pytest.mark.parametrize("env", [*ENV_IDS, WAITING])
def test_every_entry_of_our_hyperparameters_is_accepted(env: str, tmp_path: Path) -> None:
    velocity = env in ENV_IDS and env != GRID
    run_folder = train(tmp_path, env=env, params=dict(n_steps=8, batch_size=8), n_timesteps=1)
    model = load(run_folder, env)
    assert n_monitors(run_folder) == model.k == (5 if velocity else 3)
    assert model.n_agents == {GRID: 25, WAITING: 6}.get(env, 100)
    falls = "Hopper" in env or "Walker2d" in env
    assert model.gamma == (1.0 if env == GRID else 0.999 if falls else 0.99)
    assert not velocity or model.policy.log_std_init == -1.0


def test_a_configuration_of_ones_own(tmp_path: Path) -> None:
    stop = {"stable_baselines3.common.callbacks.StopTrainingOnMaxEpisodes": dict(max_episodes=2)}
    entry = dict(policy="MlpPolicy", n_timesteps=1e5, k=4, n_envs=1, callback=[stop], gamma=0.9, **SMALL)
    (tmp_path / "own.yml").write_text(yaml.dump({WAITING: entry}))
    run_folder = train(tmp_path, "--conf-file", str(tmp_path / "own.yml"), env=WAITING, n_timesteps=-1)
    model = load(run_folder, WAITING)
    # Representatives 0 and 1 have finished an episode each, of three steps at most
    assert (model.k, model.gamma, model.n_envs) == (4, 0.9, 1) and 2 <= model.num_timesteps <= 6


def test_arguments_of_the_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder = train(tmp_path, env_kwargs=dict(shape=(3, 3), home=(2, 1), max_episode_steps=5))
    assert load(run_folder).n_agents == 9
    lengths = [int(row["l"]) for row in rows(run_folder / "0.monitor.csv")]
    assert lengths and max(lengths) == 5
    enjoy(tmp_path)  # which needs them, too
    enjoy(tmp_path, env_kwargs=dict(max_episode_steps=2))
    assert capsys.readouterr().out.count("Mean reward") == 2


def test_arguments_of_the_environment_from_a_file(tmp_path: Path) -> None:
    """The evaluation has them as well, unless it has its own."""
    entry = dict(policy="MlpPolicy", n_timesteps=192, k=3, env_kwargs=dict(shape=[3, 3], home=[2, 1], max_episode_steps=7))
    (tmp_path / "own.yml").write_text(yaml.dump({GRID: {**entry, **SMALL}}))
    words = ["--conf-file", str(tmp_path / "own.yml")]
    for own, expected in ((None, 7), (dict(shape=(3, 3), home=(2, 1), max_episode_steps=4), 4)):
        more = {} if own is None else dict(eval_env_kwargs=own)
        run_folder = train(tmp_path, *words, n_timesteps=-1, eval_freq=96, **more)
        with np.load(run_folder / "evaluations.npz") as written:
            assert written["ep_lengths"].max() == expected


def test_the_time_limit_of_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder = train(tmp_path, params=dict(max_episode_steps=5, **SMALL), n_timesteps=192, eval_freq=96)
    lengths = [int(row["l"]) for row in rows(run_folder / "0.monitor.csv")]
    assert lengths and max(lengths) == 5
    with np.load(run_folder / "evaluations.npz") as written:
        assert written["ep_lengths"].max() > 5
    hyperparams, _ = get_saved_hyperparams(str(run_folder / name_of(GRID)))
    assert hyperparams["max_episode_steps"] == 5
    assert "max_episode_steps" not in read_run_folder(run_folder).env_kwargs
    enjoy(tmp_path)
    assert "Mean reward" in capsys.readouterr().out


def test_environments_in_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fork_workers(monkeypatch)
    run_folder = train(tmp_path, vec_env="subproc", n_eval_envs=2, eval_freq=192, seed=1)
    here = train(tmp_path, n_eval_envs=2, eval_freq=192, seed=1)
    assert_equal_states(parameters(load(run_folder)), parameters(load(here)))
    assert n_monitors(run_folder) == 3
    with np.load(run_folder / "evaluations.npz") as one, np.load(here / "evaluations.npz") as other:
        np.testing.assert_array_equal(one["results"], other["results"])


@pytest.mark.parametrize("env", ["CartPole-v1", GRID])
def test_other_algorithms_are_left_alone(env: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = dict(policy="MlpPolicy", n_timesteps=128, n_envs=2, normalize=True, ent_coef=0.0, **SMALL)
    (tmp_path / "ppo.yml").write_text(yaml.dump({env: entry}))
    words = ["--conf-file", str(tmp_path / "ppo.yml")]
    run_folder = train(tmp_path, *words, env=env, algo="ppo", n_timesteps=128, eval_freq=64, eval_episodes=2)
    model = PPO.load(run_folder / f"{name_of(env)}.zip", device="cpu")
    assert type(model) is PPO and model.num_timesteps == 128 and (run_folder / "best_model.zip").is_file()
    assert not (run_folder / "model_card.md").exists() and n_monitors(run_folder) == 2
    enjoy(tmp_path, env=env, algo="ppo", n_timesteps=100)
    out = capsys.readouterr().out
    assert "Mean reward" in out and "welfare" not in out


def test_run_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = list(sys.argv), list(sys.orig_argv)
    hyperparams = dict(k=2, policy_kwargs=dict(net_arch=[8]), **SMALL)
    options: dict[str, Any] = dict(env=WAITING, n_timesteps=128, hyperparams=hyperparams, progress=False)
    run_folder = run("train", ["--algo", "rppo"], seed=None, **options)
    assert run_folder is not None and run_folder.parent == Path("logs/rppo")
    assert load(run_folder, WAITING).policy_kwargs == dict(net_arch=[8]) and (run_folder / "model_card.md").is_file()
    assert (sys.argv, sys.orig_argv) == before
    assert run("enjoy", algo="rppo", env=WAITING, folder="logs", no_render=True, n_timesteps=1) is None


def test_as_a_process_of_its_own(tmp_path: Path) -> None:
    class_of_game = f"{Waiting.__module__}:{Waiting.__name__}"
    module = tmp_path / "own_games.py"
    module.write_text(f"import gymnasium\n\ngymnasium.register('own/Waiting-v0', entry_point='{class_of_game}')\n")
    assert "own/Waiting-v0" not in gym.registry
    words = ["train", "--algo", "rppo", "--env", "own/Waiting-v0", "--gym-packages", "own_games", "-n", "192"]
    done = subprocess.run(
        [sys.executable, "-m", "sb3_rmdp.zoo", *words, "-f", tmp_path / "logs", "-params", "n_steps:64", "k:2"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run_folder = tmp_path / "logs" / "rppo" / "own-Waiting-v0_1"
    assert f"Wrote {run_folder / 'model_card.md'}" in done.stdout
    assert RepresentedPPO.load(run_folder / "own-Waiting-v0.zip", device="cpu").k == 2
