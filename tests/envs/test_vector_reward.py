import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env

from sb3_rmdp.envs import REWARD_VECTOR, ResourceGatheringEnv, VectorReward, check_represented_env

WANTED = np.linspace(-1.0, 1.0, 5)


def closeness(obs, action, next_obs, info):
    return -np.abs(next_obs[0] - WANTED)


class CounterEnv(gym.Env):
    """Counts its steps in one observation buffer that is never replaced."""

    observation_space = spaces.Box(0, np.inf, shape=(1,), dtype=np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.buffer = np.zeros(1, dtype=np.float32)
        return self.buffer, {"start": True}

    def step(self, action):
        self.buffer += 1
        return self.buffer, 100.0, self.buffer[0] >= 3, False, {"count": float(self.buffer[0])}


def test_vector_mean_and_info():
    env = VectorReward(CounterEnv(), lambda obs, action, next_obs, info: [obs[0], next_obs[0], action, info["count"] * 10], 4)
    _, info = env.reset(seed=0)
    assert info == {"start": True}
    for step in range(3):
        observation, reward, terminated, truncated, info = env.step(1)
        np.testing.assert_array_equal(info[REWARD_VECTOR], [step, step + 1, 1, 10 * (step + 1)])
        assert info[REWARD_VECTOR].dtype == np.float32
        assert type(reward) is float
        assert reward == pytest.approx((12 * step + 12) / 4)
        assert info["count"] == observation[0] == step + 1
        assert (terminated, truncated) == (step == 2, False)


def test_dict_observations_are_kept_apart():
    class DictEnv(CounterEnv):
        observation_space = spaces.Dict({"count": CounterEnv.observation_space})

        def reset(self, **kwargs):
            observation, info = super().reset(**kwargs)
            return {"count": observation}, info

        def step(self, action):
            observation, *rest = super().step(action)
            return {"count": observation}, *rest

    env = VectorReward(DictEnv(), lambda obs, action, next_obs, info: next_obs["count"] - obs["count"], 1)
    env.reset()
    assert [env.step(0)[1] for _ in range(3)] == [1.0, 1.0, 1.0]


def test_vectors_are_fresh():
    buffer = np.zeros(3, dtype=np.float32)

    def reused(obs, action, next_obs, info):
        buffer[:] = next_obs[0]
        return buffer

    env = VectorReward(CounterEnv(), reused, 3)
    env.reset()
    first = env.step(0)[4][REWARD_VECTOR]
    second = env.step(0)[4][REWARD_VECTOR]
    assert first[0] == 1.0
    assert second[0] == 2.0


def test_checkers_accept_it():
    env = VectorReward(gym.make("CartPole-v1"), closeness, n_agents=5, population_id="cart")
    check_env(env)
    check_represented_env(env)


def test_made_again_from_its_spec():
    env = VectorReward(gym.make("CartPole-v1"), closeness, n_agents=5, population_id="cart")
    again = gym.make(env.spec)
    assert isinstance(again, VectorReward)
    assert (again.n_agents, again.population_id) == (5, "cart")
    env.reset(seed=0)
    again.reset(seed=0)
    np.testing.assert_array_equal(env.step(1)[4][REWARD_VECTOR], again.step(1)[4][REWARD_VECTOR])


def test_in_a_vec_env():
    venv = make_vec_env(
        "CartPole-v1",
        n_envs=2,
        seed=0,
        wrapper_class=VectorReward,
        wrapper_kwargs={"reward_fn": closeness, "n_agents": 5, "population_id": "cart"},
    )
    assert venv.get_attr("n_agents") == [5, 5]
    assert venv.get_attr("population_id") == ["cart", "cart"]
    venv.reset()
    observations, rewards, _, infos = venv.step(np.array([0, 1]))
    for observation, reward, info in zip(observations, rewards, infos, strict=True):
        np.testing.assert_allclose(info[REWARD_VECTOR], -np.abs(observation[0] - WANTED), rtol=1e-6)
        assert reward == pytest.approx(info[REWARD_VECTOR].mean())


def test_inner_population_is_hidden():
    env = VectorReward(ResourceGatheringEnv(), lambda *_: np.ones(3), n_agents=3)
    assert env.get_wrapper_attr("population_id") is None
    assert env.get_wrapper_attr("welfare_bound")(2) is None
    bounded = VectorReward(ResourceGatheringEnv(), lambda *_: np.ones(3), n_agents=3, welfare_bound=lambda k: 10.0 * k)
    assert bounded.get_wrapper_attr("welfare_bound")(2) == 20.0


@pytest.mark.parametrize("wrong", [1.0, [1.0, 2.0], np.ones((3, 1)), np.ones((1, 3))])
def test_wrong_shape_is_named(wrong):
    env = VectorReward(CounterEnv(), lambda *_: wrong, n_agents=3)
    env.reset()
    with pytest.raises(ValueError) as error:
        env.step(0)
    assert f"returned shape {np.shape(wrong)} for n_agents=3" in str(error.value)
    assert "shape (3,)" in str(error.value)


def test_bad_arguments():
    with pytest.raises(ValueError, match="n_agents=0 does not do"):
        VectorReward(CounterEnv(), closeness, n_agents=0)
    with pytest.raises(TypeError, match="reward_fn=None cannot be called"):
        VectorReward(CounterEnv(), None, n_agents=2)
