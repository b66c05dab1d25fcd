"""Wrong arguments and broken environments: errors that name the value and the mend."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.envs import REWARD_VECTOR
from tests.probes import Drift, KnownAssignment, Probe, time_limited, vectorized

SMALL: dict[str, Any] = dict(n_steps=16, batch_size=8, n_epochs=2, seed=0, device="cpu")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "k, the number of representatives, is missing"),
        ({"k": 0}, "k=0: .* at least 1"),
        ({"k": -3}, "k=-3"),
        ({"k": 2.0}, "k=2.0"),
        ({"k": True}, "k=True"),
        ({"k": 7}, "k=7 representatives for n_agents=6: choose k from 1 to 6"),
        ({"k": 2, "policy_kwargs": {"k": 3}}, r"policy_kwargs has \['k'\]"),
        ({"k": 2, "ent_coef": "lin_5e-2_1e-3"}, "ent_coef='lin_5e-2_1e-3': give a number, or a schedule"),
        ({"k": 2, "ent_coef": None}, "ent_coef=None"),
        ({"k": 2, "normalize_advantage": "batch"}, "normalize_advantage='batch': choose True, False or 'rollout'"),
        ({"k": 2, "assignment": "kmeans"}, "'kmeans' is unknown: choose one of"),
        ({"k": 2, "assignment_kwargs": {"lamda": 1}}, "lamda"),
        ({"k": 2, "assignment": "fixed"}, "who serves whom"),
        ({"k": 2, "assignment": "fixed", "assignment_kwargs": {"representatives": [0, 1]}}, r"shape \(2,\)"),
        ({"k": 2, "assignment": "fixed", "assignment_kwargs": {"representatives": [0, 1, 2, 0, 1, 0]}}, "contains 2"),
    ],
)
def test_arguments(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RepresentedPPO("MlpPolicy", KnownAssignment(), **(SMALL | kwargs))


def test_no_environment() -> None:
    with pytest.raises(ValueError, match="env=None: pass an environment"):
        RepresentedPPO("MlpPolicy", None, k=2, **SMALL)


def test_an_environment_without_agents() -> None:
    with pytest.raises(ValueError, match=r"no attribute n_agents.*VectorReward"):
        RepresentedPPO("MlpPolicy", "CartPole-v1", k=2, **SMALL)


def test_environments_with_different_agents() -> None:
    class Fewer(KnownAssignment):
        n_agents = 5

    with pytest.raises(ValueError, match="different agents"):
        RepresentedPPO("MlpPolicy", DummyVecEnv([KnownAssignment, Fewer]), k=2, **SMALL)


def test_normalised_rewards() -> None:
    env = VecNormalize(vectorized(KnownAssignment, 2))
    with pytest.raises(ValueError, match=r"norm_reward=True.*norm_reward=False"):
        RepresentedPPO("MlpPolicy", env, k=2, **SMALL)
    model = RepresentedPPO("MlpPolicy", vectorized(KnownAssignment, 2), k=2, **SMALL)
    with pytest.raises(ValueError, match="norm_reward=False"):
        model.set_env(env)
    with pytest.raises(ValueError, match="norm_reward=False"):
        evaluate_welfare(model, env, 1)


class BreaksAtStep7(Probe):
    """Three agents; the seventh step gives ``wrong`` as reward vector."""

    n_agents = 3
    action_space = spaces.Discrete(2)
    horizon = 5
    wrong: Any = None

    def __init__(self) -> None:
        self.steps = 0

    def rewards(self, action: int) -> list[float]:
        return [1.0, 2.0, 3.0]

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        obs, reward, terminated, truncated, info = super().step(action)
        self.steps += 1
        if self.steps == 7:
            info = {} if self.wrong is None else {REWARD_VECTOR: np.asarray(self.wrong, dtype=np.float32)}
        return obs, reward, terminated, truncated, info


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (None, "env 0 gave no reward vector"),
        ([1.0, 2.0], r"env 0 gave one of shape \(2,\).*must give shape \(3,\)"),
        ([[1.0], [2.0], [3.0]], r"shape \(3, 1\)"),
        (1.0, r"shape \(\)"),
        ([1.0, np.nan, 3.0], "env 0 gave agent 1 the reward nan"),
        ([np.inf, 2.0, 3.0], "env 0 gave agent 0 the reward inf"),
        ([np.inf, 2.0, -np.inf], "env 0 gave agent 0 the reward inf"),
    ],
)
def test_reward_vectors_that_break_in_mid_training(wrong: Any, message: str) -> None:
    class Breaks(BreaksAtStep7):
        pass

    Breaks.wrong = wrong
    model = RepresentedPPO("MlpPolicy", vectorized(Breaks, 2), k=2, **SMALL)
    with pytest.raises(ValueError, match=message):
        model.learn(64)
    assert model.num_timesteps == 12  # the step in which it happens, before anything is learned from it
    with pytest.raises(ValueError, match=message):
        evaluate_welfare(model, vectorized(Breaks, 2), 4)


def test_wrong_numbers_of_agents_representatives_and_episodes() -> None:
    model = RepresentedPPO("MlpPolicy", KnownAssignment(), k=2, **SMALL)
    with pytest.raises(ValueError, match="agent=6: there are 6 agents"):
        model.representative_of(6)
    with pytest.raises(ValueError, match="representative 2: with k=2"):
        model.representative(2)
    with pytest.raises(ValueError, match="representative=2: with k=2"):
        model.predict(np.zeros(2, dtype=np.float32), representative=2)
    with pytest.raises(ValueError, match="n_eval_episodes=0"):
        evaluate_welfare(model, KnownAssignment(), 0)


def test_other_spaces_are_refused_by_set_env() -> None:
    model = RepresentedPPO("MlpPolicy", vectorized(KnownAssignment, 2), k=2, **SMALL)

    class Other(KnownAssignment):
        action_space = spaces.Discrete(4)

    with pytest.raises(ValueError, match="Action spaces do not match"):
        model.set_env(vectorized(Other, 2))


def test_a_dict_needs_the_multi_input_policy() -> None:
    class Dicts(KnownAssignment):
        observation_space = spaces.Dict({"x": Drift.observation_space})

    with pytest.raises(ValueError, match="MultiInputPolicy"):
        RepresentedPPO("MlpPolicy", Dicts(), k=2, **SMALL)


def test_wrappers_hide_nothing() -> None:
    env = gym.wrappers.RecordEpisodeStatistics(time_limited(Drift()))
    assert RepresentedPPO("MlpPolicy", env, k=2, **SMALL).n_agents == 3
