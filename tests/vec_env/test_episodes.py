"""Episodes without end are noticed wherever they are waited for, and ends are told whoever has seen them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.approval import write_report
from sb3_rmdp.common.callbacks import WelfareEvalCallback
from sb3_rmdp.service import record_episodes
from sb3_rmdp.service import recording as recording_module
from sb3_rmdp.service.episodes import PLAIN
from sb3_rmdp.vec_env import WelfareVecEnv, episodes, make_represented_vec_env
from sb3_rmdp.vec_env.episodes import EndlessEpisodeError, EpisodeLengths, time_limit

#: A warning is an error here, so that what raises after fewer steps than this warns first
MATCH = r"an episode has not ended after 30 steps: give the environment a time limit, .* or pass a larger max_episode_steps"


class Endless(gym.Env):
    observation_space, action_space = gym.spaces.Box(-1, 1, (1,), np.float32), gym.spaces.Discrete(2)
    n_agents = 2

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        return np.zeros(1, np.float32), 1.0, False, False, {"reward_vector": np.ones(2, np.float32)}


class LosesLives(gym.Wrapper):
    """Every third step pretends that the episode has ended, as SB3's wrapper of Atari games does; it goes on after reset."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict]:
        self.t = 0
        if not getattr(self, "over", True):
            return self.env.step(0)[0], {}
        self.over = False
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.t, self.over = self.t + 1, terminated or truncated
        return observation, reward, terminated or self.t == 3, truncated, info


class EndsAbove(gym.Wrapper):
    """Ends an episode by itself, without the Monitor below."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict]:
        self.t = 0
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        observation, reward, _, truncated, info = self.env.step(action)
        self.t += 1
        return observation, reward, self.t == 4, truncated, info


def limited() -> gym.Env:
    """In the order in which RL Zoo's env_wrapper puts them."""
    return TimeLimit(Monitor(Endless()), 5)


@pytest.fixture(scope="module")
def model() -> RepresentedPPO:
    venv = DummyVecEnv([limited, limited])
    return RepresentedPPO("MlpPolicy", venv, k=2, n_steps=32, batch_size=32, device="cpu", seed=0).learn(64)


def test_an_evaluation_of_sb3_ends_where_a_time_limit_above_the_monitor_ends_episodes(model: RepresentedPPO) -> None:
    callback = EvalCallback(DummyVecEnv([limited]), eval_freq=20, verbose=0)
    model.learn(64, callback=callback)
    assert callback.last_mean_reward == 5.0
    assert [info["r"] for info in model.ep_info_buffer or []] == [5.0] * 12  # 64 steps in two environments
    assert {info["l"] for info in model.ep_info_buffer or []} == {5}


@pytest.mark.parametrize("wrapper", [EndsAbove, LosesLives])
def test_only_true_ends_are_told(wrapper: Any) -> None:
    inner = wrapper(Monitor(TimeLimit(Endless(), 10) if wrapper is LosesLives else Endless()))
    venv = WelfareVecEnv(DummyVecEnv([lambda: inner]))
    venv.reset()
    ends = []
    for _ in range(24):
        _, _, dones, infos = venv.step(np.zeros(1, dtype=np.int64))
        if dones[0]:
            ends.append(infos[0].get("episode", {}).get("l"))
    # Of ten steps, every fourth is made by the reset after a lost life
    assert ends == ([4] * 6 if wrapper is EndsAbove else [None, None, 10, None, None, 10, None, None, 10])


def test_the_entry_of_a_monitor_on_top_stays_its_own() -> None:
    with pytest.warns(UserWarning, match="already wrapped with a `Monitor`"):
        venv = VecMonitor(DummyVecEnv([limited]))
    model = RepresentedPPO("MlpPolicy", venv, k=1, n_steps=10, batch_size=10, device="cpu").learn(20)
    assert [(info["r"], info["l"]) for info in model.ep_info_buffer or []] == [(5.0, 5)] * 4


WAITING: dict[str, Callable[[RepresentedPPO, Any, Path], Any]] = {
    "evaluate_welfare": lambda model, env, _: evaluate_welfare(model, env, 1),
    "record_episodes": lambda model, env, _: record_episodes(model, env, 2),
    "write_report": lambda model, env, folder: write_report(model, env, folder / "report", 1, seeds=1, stress=False),
    "evaluate_policy": lambda model, env, _: evaluate_policy(model, WelfareVecEnv(DummyVecEnv([lambda: env])), 1, warn=False),
    "EvalCallback": lambda model, env, _: model.learn(64, callback=EvalCallback(Monitor(env), eval_freq=8, verbose=0)),
}


@pytest.mark.parametrize("waiting", WAITING)
def test_an_episode_without_end_is_a_warning_and_then_an_error(
    waiting: str, model: RepresentedPPO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(episodes, "LONG", 20)
    monkeypatch.setattr(episodes, "ENDLESS", 30)
    with pytest.warns(UserWarning, match="has not ended after 20 steps, and is given up after 30: give"):
        with pytest.raises(EndlessEpisodeError, match=MATCH):
            WAITING[waiting](model, Endless(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_whoever_knows_how_long_episodes_are_says_so(model: RepresentedPPO, tmp_path: Path) -> None:
    env = TimeLimit(Endless(), 31)
    for call in (
        lambda **kwargs: evaluate_welfare(model, env, 1, **kwargs),
        lambda **kwargs: record_episodes(model, env, 2, **kwargs),
        lambda **kwargs: write_report(model, env, tmp_path / "report", 1, 1, stress=False, frames=0, **kwargs),
    ):
        with pytest.raises(ValueError, match=MATCH):
            call(max_episode_steps=30)
        with pytest.raises(ValueError, match="max_episode_steps=0 does not do"):
            call(max_episode_steps=0)
        call(max_episode_steps=31)


def test_a_training_survives_an_evaluation_without_end(model: RepresentedPPO) -> None:
    callback = WelfareEvalCallback(Endless(), eval_freq=32, n_eval_episodes=1, verbose=0, max_episode_steps=30)
    with pytest.warns(UserWarning, match="no evaluation after 64 timesteps: " + MATCH):
        model.learn(64, callback=callback)
    assert model.num_timesteps == 64 and callback.evaluations == []
    with pytest.raises(ValueError, match="max_episode_steps='x' does not do"):
        WelfareEvalCallback(Endless(), max_episode_steps="x")  # type: ignore[arg-type]


def test_a_longer_time_limit_of_the_environment_is_trusted(monkeypatch: pytest.MonkeyPatch, model: RepresentedPPO) -> None:
    monkeypatch.setattr(episodes, "LONG", 20)
    monkeypatch.setattr(episodes, "ENDLESS", 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluate_welfare(model, TimeLimit(Endless(), 40), 1).social_welfare == 40.0


def test_lengths_are_counted_per_environment() -> None:
    lengths = EpisodeLengths(DummyVecEnv([Endless, Endless]), 3)
    assert lengths.add(np.array([False, True])).tolist() == [1, 1]
    assert lengths.add(np.array([False, False])).tolist() == [2, 1]
    assert lengths.add(np.array([True, False])).tolist() == [3, 2]
    with pytest.raises(EndlessEpisodeError, match="after 3 steps"):
        lengths.add(np.array([False, False]))


LIMITS: list[tuple[Callable[[], Any], int | None]] = [
    (lambda: make_represented_vec_env("rmdp/HopperVelocity-v0", 2), 1000),
    (lambda: make_represented_vec_env("rmdp/ResourceGathering-v0", 2), 40),
    (lambda: WelfareVecEnv(DummyVecEnv([limited])), 5),
    (lambda: DummyVecEnv([lambda: TimeLimit(TimeLimit(Endless(), 7), 9)]), 7),
    (lambda: DummyVecEnv([lambda: TimeLimit(Endless(), 7), lambda: TimeLimit(Endless(), 9)]), 9),
    (lambda: DummyVecEnv([limited, Endless]), None),
    (lambda: DummyVecEnv([Endless]), None),
    (lambda: SubprocVecEnv([limited], start_method="fork"), 5),
    (lambda: SubprocVecEnv([Endless], start_method="fork"), None),
]


@pytest.mark.parametrize(("make", "limit"), LIMITS)
def test_time_limits_are_found(make: Callable[[], Any], limit: int | None) -> None:
    env = make()
    assert time_limit(env) == limit
    env.close()


def test_what_a_recording_keeps_of_a_running_episode_is_counted(
    model: RepresentedPPO, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []
    keep = recording_module._Recording.has_room

    def has_room(self: Any, running: list[Any]) -> bool:
        held.append(sum(array[PLAIN].nbytes for piece in running for array in piece.observations))
        return keep(self, running)

    monkeypatch.setattr(recording_module._Recording, "has_room", has_room)
    with pytest.warns(UserWarning, match="trajectories take more than 1000 bytes and are dropped"):
        with pytest.raises(EndlessEpisodeError):
            record_episodes(model, DummyVecEnv([Endless, Endless]), 2, max_bytes=1000, max_episode_steps=500)
    assert 0 < max(held) <= 1008 and len(held) < 100
