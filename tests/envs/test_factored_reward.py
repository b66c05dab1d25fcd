import copy
import gc
import pickle

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env

from sb3_rmdp.envs import (
    REWARD_FEATURES,
    REWARD_VECTOR,
    FactoredReward,
    HopperVelocityEnv,
    ResourceGatheringEnv,
    RewardWeights,
    VectorReward,
    check_represented_env,
    fingerprint,
)
from tests.envs.test_vector_reward import CounterEnv

WEIGHTS = np.random.default_rng(0).normal(size=(5, 3))


def features(obs, action, next_obs, info):
    return next_obs[0], obs[1], action


def rewards(obs, action, next_obs, info):
    """What the agents earn by these features, the other way."""
    return WEIGHTS.astype(np.float32) @ np.float32(features(obs, action, next_obs, info))


def test_is_vector_reward_but_for_what_the_info_says():
    factored = FactoredReward(gym.make("CartPole-v1"), features, WEIGHTS)
    vector = VectorReward(gym.make("CartPole-v1"), rewards, n_agents=5)
    assert factored.n_agents == vector.n_agents == 5 and type(factored.n_agents) is int
    assert (factored.reward_weights.shape, factored.reward_weights.dtype) == ((5, 3), np.float32)
    np.testing.assert_array_equal(factored.reset(seed=0)[0], vector.reset(seed=0)[0])
    over = False
    while not over:
        observation, reward, over, truncated, info = factored.step(1)
        other = vector.step(1)
        np.testing.assert_array_equal(observation, other[0])
        assert (over, truncated) == other[2:4]
        assert set(info) == {REWARD_FEATURES} and set(other[4]) == {REWARD_VECTOR}
        assert (info[REWARD_FEATURES].shape, info[REWARD_FEATURES].dtype) == ((3,), np.float32)
        np.testing.assert_allclose(factored.reward_weights @ info[REWARD_FEATURES], other[4][REWARD_VECTOR], rtol=1e-5)
        assert type(reward) is float
        assert reward == pytest.approx(other[1], abs=1e-6)


def test_features_are_fresh():
    buffer = np.zeros(2, dtype=np.float32)

    def reused(obs, action, next_obs, info):
        buffer[:] = next_obs[0]
        return buffer

    env = FactoredReward(CounterEnv(), reused, np.eye(2))
    env.reset()
    first, second = (env.step(0)[4] for _ in range(2))
    assert (first[REWARD_FEATURES][0], second[REWARD_FEATURES][0]) == (1.0, 2.0)
    assert second["count"] == 2.0


def test_checkers_accept_it():
    env = FactoredReward(gym.make("CartPole-v1"), features, WEIGHTS)
    check_env(env)
    check_represented_env(env)


def test_agents_inside_are_hidden():
    inside = ResourceGatheringEnv()
    env = FactoredReward(inside, lambda *_: np.ones(3), WEIGHTS)
    env.reset()
    assert REWARD_VECTOR not in env.step(0)[4]
    assert env.get_wrapper_attr("population_id") == fingerprint("weights", np.float32(WEIGHTS)) != inside.population_id
    assert env.get_wrapper_attr("welfare_bound")(2) is None
    bounded = FactoredReward(inside, lambda *_: np.ones(3), WEIGHTS, "mine", welfare_bound=lambda k: 10.0 * k)
    assert bounded.population_id == "mine" and bounded.get_wrapper_attr("welfare_bound")(2) == 20.0
    # And the other way round
    outer = VectorReward(env, lambda *_: np.ones(4), n_agents=4)
    outer.reset()
    assert REWARD_FEATURES not in outer.step(0)[4] and outer.get_wrapper_attr("reward_weights") is None


def same_array(envs):
    arrays = [env.get_wrapper_attr("reward_weights") for env in envs]
    return len({array.__array_interface__["data"] for array in arrays}) == 1 and not any(a.flags.writeable for a in arrays)


def test_copies_share_the_weights():
    env = FactoredReward(gym.make("CartPole-v1"), features, WEIGHTS)
    kwargs = {"feature_fn": features, "reward_weights": WEIGHTS.copy()}
    others = make_vec_env("CartPole-v1", 2, wrapper_class=FactoredReward, wrapper_kwargs=kwargs)
    copies = [gym.make(env.spec), copy.deepcopy(env), *others.envs]
    assert same_array([env, *copies])
    assert {made.get_wrapper_attr("population_id") for made in copies} == {env.population_id}
    assert others.get_attr("n_agents") == [5, 5]
    for made in copies:
        made.reset(seed=3)
        env.reset(seed=3)
        np.testing.assert_array_equal(made.step(1)[4][REWARD_FEATURES], env.step(1)[4][REWARD_FEATURES])


def test_weights_are_held_once_and_not_for_ever():
    given = np.float32(WEIGHTS)
    weights = RewardWeights(given)
    assert not np.shares_memory(weights.array, given)
    assert RewardWeights(WEIGHTS) is RewardWeights(given.tolist()) is RewardWeights(weights) is weights
    assert copy.copy(weights) is copy.deepcopy(weights) is pickle.loads(pickle.dumps(weights)) is weights
    assert RewardWeights(-WEIGHTS) is not weights
    given[0, 0] += 1.0
    assert RewardWeights(given) is not weights and weights.array[0, 0] == np.float32(WEIGHTS[0, 0])
    with pytest.raises(ValueError, match="read-only"):
        weights.array[0, 0] = 0.0
    frozen = given.copy()
    frozen.setflags(write=False)
    assert RewardWeights(frozen).array is frozen
    gc.collect()  # what other tests have left
    pickled, held = pickle.dumps(weights), len(RewardWeights._held)
    del weights
    gc.collect()
    assert len(RewardWeights._held) == held - 1
    loaded = pickle.loads(pickled)
    assert not loaded.array.flags.writeable
    np.testing.assert_array_equal(loaded.array, np.float32(WEIGHTS))


def test_mean_reward():
    weights = RewardWeights(np.random.default_rng(1).normal(size=(1000, 7)))
    phi = np.random.default_rng(2).normal(size=(4, 7)).astype(np.float32)
    expected = (weights.array.astype(np.float64) @ phi.T).mean(axis=0)
    np.testing.assert_allclose(weights.mean_reward(phi), expected, rtol=1e-12)
    for row, mean in zip(phi, weights.mean_reward(phi), strict=True):
        assert weights.mean_reward(row) == mean  # to the last bit


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0], r"have shape \(2,\); give one row per agent and one column per feature, shape \(n_agents, m\)"),
        (np.ones((2, 2, 2)), r"have shape \(2, 2, 2\)"),
        (np.ones((0, 3)), r"have shape \(0, 3\)"),
        (np.ones((3, 0)), r"have shape \(3, 0\)"),
        ([[1.0, 2.0], [3.0]], "are no numbers"),
        ([["much", "little"]], "are no numbers"),
        ([[1.0, 2.0], [3.0, np.nan]], "of agent 1 hold nan for feature 1; give finite"),
        ([[1.0, -1e300]], "of agent 0 hold -inf for feature 1"),
    ],
)
def test_bad_weights(weights, message):
    with pytest.raises(ValueError, match=f"reward_weights.*{message}"):
        FactoredReward(CounterEnv(), features, weights)


def test_feature_fn_that_cannot_be_called():
    with pytest.raises(TypeError, match="feature_fn=3 cannot be called"):
        FactoredReward(CounterEnv(), 3, WEIGHTS)


@pytest.mark.parametrize("wrong", [1.0, [1.0, 2.0], np.ones((3, 1)), np.ones(5)])
def test_wrong_shape_is_named(wrong):
    env = FactoredReward(CounterEnv(), lambda *_: wrong, WEIGHTS)
    env.reset()
    with pytest.raises(ValueError) as error:
        env.step(0)
    assert f"feature_fn returned shape {np.shape(wrong)} for reward_weights of shape (5, 3)" in str(error.value)
    assert "shape (3,)" in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_feature_that_is_not_finite_is_named(value):
    env = FactoredReward(CounterEnv(), lambda *_: [1.0, value, value], WEIGHTS)
    env.reset()
    with pytest.raises(ValueError, match=f"feature_fn returned {value} as feature 1; return finite features"):
        env.step(0)


def test_a_factored_task_inside_pays_its_own_no_more():
    env = FactoredReward(HopperVelocityEnv(n_features=50), lambda *_: np.ones(3), WEIGHTS)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.zeros(3, dtype=np.float32))
    assert info[REWARD_FEATURES].tolist() == [1.0, 1.0, 1.0]
    assert reward == pytest.approx(WEIGHTS.sum(axis=1).mean(), rel=1e-5)
