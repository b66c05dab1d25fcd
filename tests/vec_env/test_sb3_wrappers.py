"""SB3's wrappers of vec envs leave reward vectors, turns and evaluations as they are, and do what they are there for."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecCheckNan,
    VecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecVideoRecorder,
)

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.envs import REWARD_VECTOR
from tests.probes import Drift, time_limited, vectorized

#: As many representatives as environments: representative e acts in environment e
K = 3
SMALL: dict[str, Any] = dict(k=K, n_steps=96, batch_size=32, n_epochs=2, gamma=1.0, assignment="em", seed=0, device="cpu")


def walkers(**kwargs: Any) -> VecEnv:
    """Environments without wrappers, and without any chance: the same actions always have the same consequences."""
    return DummyVecEnv([lambda: gym.make("rmdp/ResourceGathering-v0", **kwargs)] * K)


def vectors_of(infos: list[dict]) -> np.ndarray:
    return np.stack([info[REWARD_VECTOR] for info in infos])


class Twins(BaseCallback):
    """
    Acts alike in twins of the environments, which have no wrapper, and compares.

    :param observe: what of an observation of the training should be that of the twins
    """

    def __init__(self, observe: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        super().__init__()
        self.observe = observe
        self.twins = walkers()
        self.running: np.ndarray = np.zeros((K, 25))
        self.episodes: list[tuple[int, np.ndarray]] = []  # representative and returns (n_agents,), in order of their ends
        self.n_rollouts = 0

    def _on_training_start(self) -> None:
        self.twins.reset()

    def _on_rollout_start(self) -> None:
        self.of_rollout: list[list[np.ndarray]] = [[] for _ in range(K)]

    def _on_step(self) -> bool:
        observations, rewards, dones, infos = self.twins.step(self.locals["clipped_actions"])
        np.testing.assert_array_equal(vectors_of(self.locals["infos"]), vectors_of(infos))
        np.testing.assert_array_equal(self.locals["rewards"], rewards)
        np.testing.assert_array_equal(self.locals["dones"], dones)
        if self.observe is not None:
            np.testing.assert_array_equal(self.observe(self.locals["new_obs"]), observations)
        self.running += vectors_of(infos)
        for idx in np.flatnonzero(dones):
            self.episodes.append((idx, self.running[idx].copy()))
            self.of_rollout[idx].append(self.running[idx].copy())
            self.running[idx] = 0.0
        return True

    def _on_rollout_end(self) -> None:
        self.n_rollouts += 1
        utilities = np.array([np.mean(returns, axis=0) for returns in self.of_rollout])
        welfare = utilities[self.model.assignment.representatives, np.arange(25)].mean()  # type: ignore[attr-defined]
        assert self.logger.name_to_value["rollout/social_welfare"] == pytest.approx(welfare)


def trained(env: VecEnv, observe: Callable[[np.ndarray], np.ndarray] | None = None) -> tuple[RepresentedPPO, Twins]:
    """A model that learned under a wrapper, compared with twins at every step; all of its representatives did."""
    twins = Twins(observe)
    model = RepresentedPPO("MlpPolicy", env, assignment_kwargs=dict(warm_start=0), **SMALL)
    before = {name: value.clone() for name, value in model.policy.named_parameters()}
    model.learn(3 * 96 * K, callback=twins)
    assert twins.n_rollouts == 3
    for name, parameter in model.policy.named_parameters():
        if name.startswith("action_net"):
            assert (parameter != before[name]).flatten(1).any(dim=1).tolist() == [True] * K
    return model, twins


def utilities_by_hand(model: RepresentedPPO, env: VecEnv) -> np.ndarray:
    """Returns (n_agents, k) in twins of the environments, whose observations go to the representatives."""
    twins, utilities, running = walkers(), np.zeros((25, K)), np.full(K, True)
    obs, _ = env.reset(), twins.reset()
    while running.any():
        actions, _ = model.predict(obs, deterministic=True, representative=np.arange(K))  # type: ignore[arg-type]
        obs, _, dones, _ = env.step(actions)
        utilities[:, running] += vectors_of(twins.step(actions)[3])[running].T
        running &= ~dones
    return utilities


def same_parameters(one: RepresentedPPO, other: RepresentedPPO) -> bool:
    others = other.policy.state_dict()
    return all(th.equal(value, others[name]) for name, value in one.policy.state_dict().items())


def check_evaluation(model: RepresentedPPO, env: VecEnv) -> None:
    utilities = evaluate_welfare(model, env, 1).utilities
    np.testing.assert_allclose(utilities, utilities_by_hand(model, env))
    assert utilities.any()


def test_vec_normalize() -> None:
    env = VecNormalize(walkers(), norm_reward=False, gamma=1.0)
    model, _ = trained(env, observe=lambda obs: env.get_original_obs())
    assert env.obs_rms.count > 3 * 96 * K and not np.array_equal(env.reset(), walkers().reset())  # it did something
    count = env.obs_rms.count
    env.training = False
    check_evaluation(model, env)
    assert env.obs_rms.count == count


def test_vec_frame_stack() -> None:
    env = VecFrameStack(walkers(), n_stack=3)
    model, _ = trained(env, observe=lambda obs: obs[:, -27:])
    assert model.policy.observation_space.shape == (3 * 27,)
    check_evaluation(model, env)


def test_vec_monitor(tmp_path: Path) -> None:
    env = VecMonitor(walkers(), str(tmp_path / "monitor.csv"))
    model, twins = trained(env, observe=lambda obs: obs)
    env.close()
    with open(tmp_path / "monitor.csv") as file:
        file.readline()
        rewards = [float(row["r"]) for row in csv.DictReader(file)]
    means = [returns.mean() for _, returns in twins.episodes]  # the mean agent of whoever acted
    np.testing.assert_allclose(rewards, means, atol=1e-4)
    np.testing.assert_allclose([episode["r"] for episode in model.ep_info_buffer], means[-100:], atol=1e-4)
    check_unchanged(model, VecMonitor(walkers()))


def check_unchanged(model: RepresentedPPO, env: VecEnv) -> None:
    """Wrappers that only look on: training and evaluation are those without them."""
    assert same_parameters(model, trained(walkers())[0])
    assert evaluate_welfare(model, env, 1).utilities.any()
    np.testing.assert_array_equal(evaluate_welfare(model, env, 1).utilities, evaluate_welfare(model, walkers(), 1).utilities)


def test_vec_check_nan() -> None:
    model, _ = trained(VecCheckNan(walkers(), raise_exception=True), observe=lambda obs: obs)
    check_unchanged(model, VecCheckNan(walkers(), raise_exception=True))


class Broken(Drift):
    """
    Gives nan where it is told to, from the fourth step on.

    :param where: "observation", "rewards" of all agents, or the reward of agent "1"
    """

    def __init__(self, where: str):
        self.where = where

    def observe(self) -> np.ndarray:
        return super().observe() * (np.nan if self.where == "observation" and self.time >= 3 else 1.0)

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        observation, reward, terminated, truncated, info = super().step(action)
        if self.time >= 3 and self.where == "rewards":
            reward = np.nan
        elif self.time >= 3 and self.where == "1":
            info[REWARD_VECTOR][1] = np.nan
        return observation, reward, terminated, truncated, info


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("observation", "found nan in observations.*\r\n.*\r\n.*action="),
        ("rewards", "found nan in rewards.*\r\n.*\r\n.*action="),
        # It does not look into the infos, we do
        ("1", "env 0 gave agent 1 the reward nan"),
    ],
)
def test_vec_check_nan_finds_it(where: str, message: str) -> None:
    env = VecCheckNan(vectorized(lambda: time_limited(Broken(where)), 2), raise_exception=True)
    model = RepresentedPPO("MlpPolicy", env, **(SMALL | dict(k=2)))
    with pytest.raises(ValueError, match=message):
        model.learn(192)
    assert model.num_timesteps < 2 * 4


def test_vec_video_recorder(tmp_path: Path) -> None:
    pytest.importorskip("moviepy")
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    venv = walkers(render_mode="rgb_array")
    env = VecVideoRecorder(venv, str(tmp_path), record_video_trigger=lambda step: step == 10, video_length=20)
    model, _ = trained(env, observe=lambda obs: obs)
    (video,) = tmp_path.iterdir()
    assert video.name == "rl-video-step-10-to-step-30.mp4"
    command = [ffmpeg.get_ffmpeg_exe(), "-i", str(video), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = subprocess.run(command, capture_output=True, check=True).stdout
    pictures = np.frombuffer(decoded, np.uint8).reshape(-1, *venv.render().shape).astype(float)  # type: ignore[union-attr]
    assert len(pictures) == 20 + 1  # a picture of the beginning, and one of every step
    assert max(np.abs(picture - pictures[0]).max() for picture in pictures) > 50  # somebody walks
    check_unchanged(model, env)
    env.close()


def test_subproc_vec_env() -> None:
    """Robots that begin at random: seeds must reach the workers, and reward vectors and last observations come back."""

    class Seen(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.vectors: list[np.ndarray] = []

        def _on_step(self) -> bool:
            self.vectors.append(vectors_of(self.locals["infos"]))
            return True

    def run(vec_env_cls: type[VecEnv]) -> tuple[RepresentedPPO, np.ndarray, Any]:
        def make(n_envs: int) -> VecEnv:
            # Workers have imported nothing: the module before the id tells them where it is
            env_id, agents = "sb3_rmdp.envs:rmdp/HopperVelocity-v0", dict(targets=np.linspace(0.0, 0.6, 20))
            return make_vec_env(env_id, n_envs, seed=1, vec_env_cls=vec_env_cls, env_kwargs=agents)  # type: ignore[arg-type]

        env, seen = make(3), Seen()
        model = RepresentedPPO("MlpPolicy", env, assignment_kwargs=dict(warm_start=0), **(SMALL | dict(seed=4)))
        model.learn(2 * 96 * 3, callback=seen)
        env.seed(7)
        result = evaluate_welfare(model, env, 2)
        env.close()
        return model, np.array(seen.vectors), result

    (here, vectors, result), (there, vectors_there, result_there) = run(DummyVecEnv), run(SubprocVecEnv)
    np.testing.assert_array_equal(vectors, vectors_there)
    assert not np.array_equal(vectors[:, 0], vectors[:, 1])  # three different environments
    assert same_parameters(here, there)
    np.testing.assert_array_equal(here.assignment.representatives, there.assignment.representatives)
    np.testing.assert_array_equal(result.utilities, result_there.utilities)
    assert result.utilities.any() and result.standard_error == result_there.standard_error > 0
