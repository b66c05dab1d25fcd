import doctest
import importlib
import warnings

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import sb3_rmdp.envs
from sb3_rmdp.envs import ENV_IDS, check_represented_env, checker, resource_gathering, vector_reward


def test_ids():
    assert {
        "rmdp/ResourceGathering-v0",
        "rmdp/HalfCheetahVelocity-v0",
        "rmdp/AntVelocity-v0",
        "rmdp/HopperVelocity-v0",
        "rmdp/Walker2dVelocity-v0",
    } == set(ENV_IDS)
    assert set(ENV_IDS) <= set(gym.registry)


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_checkers_accept_every_id(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The observations of MuJoCo envs are unbounded, as in gymnasium itself.
        warnings.filterwarnings("ignore", message=".*A Box observation space (minimum|maximum) value is -?infinity")
        sb3_check_env(gym.make(env_id))
        # Rendering is tested apart: MuJoCo's needs a graphics driver.
        gymnasium_check_env(gym.make(env_id, disable_env_checker=True).unwrapped, skip_render_check=True)
        check_represented_env(gym.make(env_id))


def test_gymnasium_checker_renders_the_grid():
    gymnasium_check_env(gym.make("rmdp/ResourceGathering-v0", render_mode="rgb_array", disable_env_checker=True).unwrapped)


def test_importing_again_changes_nothing():
    before = {env_id: gym.spec(env_id) for env_id in ENV_IDS}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.reload(sb3_rmdp.envs)
    assert {env_id: gym.spec(env_id) for env_id in ENV_IDS} == before


def test_everything_exported_is_there():
    for name in sb3_rmdp.envs.__all__:
        assert hasattr(sb3_rmdp.envs, name)


@pytest.mark.parametrize("module", [checker, resource_gathering, vector_reward])
def test_examples_in_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
