"""The checker looks at environments with factored rewards as well."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec, registry

from sb3_rmdp.envs import REWARD_FEATURES, RewardWeights
from tests.envs.test_checker import GoodEnv, refused, silent, variant


class FactoredEnv(GoodEnv):
    """Three agents who weigh two features."""

    population_id = "factored"
    weights = RewardWeights([[1, 0], [0, 1], [0.5, 0.5]])
    reward_weights = weights.array

    def step(self, action):
        observation, _, terminated, truncated, _ = super().step(action)
        phi = self.features(action)
        return observation, self.mean(phi), terminated, truncated, {} if phi is None else {REWARD_FEATURES: phi}

    def features(self, action):
        return np.float32([action, 3])

    def mean(self, phi):
        return float(self.weights.mean_reward(phi))


def frozen(weights, dtype=np.float32):
    array = np.array(weights, dtype=dtype)
    array.setflags(write=False)
    return array


def test_factored_env_passes_silently():
    silent(FactoredEnv())
    # Rounded at every step of the computation
    silent(variant(FactoredEnv, mean=lambda self, phi: float((self.reward_weights @ phi).mean())))
    # A reward vector besides is nobody's business; weights of None are none
    silent(variant(FactoredEnv, reward_weights=None, step=GoodEnv.step))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[1.0, 2.0]] * 3, "is of type list; make it float32 of shape"),
        (frozen(np.ones((2, 2))), r"has shape \(2, 2\) for n_agents=3"),
        (frozen(np.ones(3)), r"has shape \(3,\) for n_agents=3"),
        (frozen(np.ones((3, 0))), r"has shape \(3, 0\)"),
        (frozen(np.ones((3, 2)), np.float64), "is of dtype float64"),
        (frozen([[1, 2], [3, 4], [np.nan, 6]]), r"is not finite for agents \[2\]; fix their weights"),
        (np.ones((3, 2), dtype=np.float32), r"can be written to; call reward_weights.setflags\(write=False\)"),
    ],
)
def test_reward_weights(weights, message):
    refused(variant(FactoredEnv, reward_weights=weights), f"reward_weights {message}")


@pytest.mark.parametrize(
    ("phi", "message"),
    [
        (None, r"is missing at step 0; put the reward features"),
        ([1.0, 2.0], "is of type list; make it a numpy array"),
        (np.float32([1, 2, 3]), r"has shape \(3,\); make it one number per column of reward_weights, shape \(2,\)"),
        (np.array([1.0, 2.0]), "is of dtype float64; make it float32"),
        (np.float32([1, np.inf]), r"is not finite for features \[1\]"),
    ],
)
def test_wrong_features(phi, message):
    env = variant(FactoredEnv, features=lambda self, action: phi, mean=lambda self, phi: 3.0)
    refused(env, rf'info\["reward_features"\] .*{message}|info\["reward_features"\] {message}')


def test_features_in_the_same_buffer():
    class Reused(FactoredEnv):
        buffer = np.zeros(2, dtype=np.float32)

        def features(self, action):
            self.buffer[:] = action
            return self.buffer

    refused(Reused(), r'info\["reward_features"\] at step 1 is the buffer of an earlier step')


def test_scalar_is_not_the_mean_of_factored_rewards():
    refused(
        variant(FactoredEnv, mean=lambda self, phi: float(phi.mean()) + 0.01), "the mean over the agents is .*RewardWeights"
    )


def test_weights_change_with_the_seed():
    class Drawn(FactoredEnv):
        def reset(self, *, seed=None, options=None):
            result = super().reset(seed=seed)
            self.weights = RewardWeights(self.np_random.random((3, 2)))
            self.reward_weights = self.weights.array
            return result

    refused(Drawn(), r"reward_weights are others after reset\(seed=0\); draw them once")


def test_copies_have_other_weights(monkeypatch):
    class DrawnWeights(FactoredEnv):
        def __init__(self):
            self.weights = RewardWeights(np.random.default_rng().random((3, 2)))
            self.reward_weights = self.weights.array

    monkeypatch.setitem(registry, "Weights-v0", EnvSpec("Weights-v0", entry_point=DrawnWeights))
    refused(gym.make("Weights-v0"), r"reward_weights are others in a copy made by gym.make\(env.spec\)")
