import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_util import make_vec_env

from sb3_rmdp.envs import REWARD_VECTOR, ResourceGatheringEnv
from sb3_rmdp.envs.resource_gathering import step_limit_of_task

ID = "rmdp/ResourceGathering-v0"
UP, DOWN, LEFT, RIGHT = range(4)
HOME_AGENT = 4 * 5 + 2

#: A closed walk of 26 steps over all 25 tiles: the grid is odd, so one tile is crossed twice.
GRAND_TOUR = "UUUULLDDDDRUUURRURDDLDRDLL"


def walk(env, moves):
    """Play a tour given as letters from a fresh reset; return the last step."""
    env.reset(seed=0)
    for number, letter in enumerate(moves):
        step = env.step("UDLR".index(letter))
        if number < len(moves) - 1:
            assert not step[2], f"over after {number + 1} steps"
            assert not step[4][REWARD_VECTOR].any()
            assert step[1] == 0.0
            assert "tour" not in step[4]
    return step


def test_start():
    env = ResourceGatheringEnv()
    observation, info = env.reset(seed=3)
    assert env.n_agents == 25
    assert info == {}
    assert observation.dtype == np.float32
    expected = np.zeros(27)
    expected[[0, 1, 2 + HOME_AGENT]] = 1.0, 0.5, 1.0
    np.testing.assert_array_equal(observation, expected)
    assert env.path == [(4, 2)]


def test_bump_at_home_ends_with_one_step():
    _, reward, terminated, truncated, info = walk(ResourceGatheringEnv(), "D")
    assert terminated
    assert not truncated
    expected = np.zeros(25)
    expected[HOME_AGENT] = 99
    np.testing.assert_array_equal(info[REWARD_VECTOR], expected)
    assert reward == pytest.approx(99 / 25)
    assert info["tour"] == [(4, 2), (4, 2)]


def test_bump_elsewhere_stays_and_costs_a_step():
    env = ResourceGatheringEnv()
    env.reset()
    env.step(LEFT)
    observation, _, terminated, _, _ = env.step(DOWN)
    assert not terminated
    np.testing.assert_array_equal(observation[:2], np.float32([1.0, 0.25]))
    _, _, terminated, _, info = env.step(RIGHT)
    assert terminated
    expected = np.zeros(25)
    expected[[HOME_AGENT - 1, HOME_AGENT]] = 97
    np.testing.assert_array_equal(info[REWARD_VECTOR], expected)


def test_observation_follows_the_walk():
    env = ResourceGatheringEnv()
    env.reset()
    observation, *_ = env.step(UP)
    np.testing.assert_array_equal(observation[:2], np.float32([0.75, 0.5]))
    assert set(np.flatnonzero(observation[2:])) == {HOME_AGENT, HOME_AGENT - 5}
    assert observation in env.observation_space


@pytest.mark.parametrize(
    ("moves", "visited"),
    [
        ("UD", {(4, 2), (3, 2)}),
        ("RULD", {(4, 2), (4, 3), (3, 3), (3, 2)}),
        # There and back visits a tile once, whatever the number of crossings.
        ("UUDUDD", {(4, 2), (3, 2), (2, 2)}),
        (GRAND_TOUR, {(row, col) for row in range(5) for col in range(5)}),
    ],
)
def test_returns_of_tours(moves, visited):
    env = ResourceGatheringEnv()
    observation, reward, terminated, truncated, info = walk(env, moves)
    assert terminated
    assert not truncated
    expected = np.zeros((5, 5))
    for tile in visited:
        expected[tile] = 100 - len(moves)
    np.testing.assert_array_equal(info[REWARD_VECTOR], expected.ravel())
    assert info[REWARD_VECTOR].dtype == np.float32
    assert type(reward) is float
    assert reward == pytest.approx(len(visited) * (100 - len(moves)) / 25)
    np.testing.assert_array_equal(observation[2:].reshape(5, 5), expected > 0)
    assert len(info["tour"]) == len(moves) + 1
    assert set(info["tour"]) == visited


def test_grand_tour_gives_every_agent_74():
    _, reward, _, _, info = walk(ResourceGatheringEnv(), GRAND_TOUR)
    assert reward == 74.0
    assert (info[REWARD_VECTOR] == 74.0).all()


@pytest.mark.parametrize(
    "build", [ResourceGatheringEnv, lambda max_episode_steps: gym.make(ID, max_episode_steps=max_episode_steps)]
)
def test_step_limit_terminates_without_reward(build):
    env = build(max_episode_steps=7)
    _, reward, terminated, truncated, info = walk(env, "U" * 7)
    assert terminated
    assert not truncated
    assert reward == 0.0
    assert not info[REWARD_VECTOR].any()
    assert info["tour"][:5] == [(4, 2), (3, 2), (2, 2), (1, 2), (0, 2)]
    assert len(info["tour"]) == 8


def test_home_at_the_very_last_step_is_paid():
    _, reward, terminated, _, _ = walk(ResourceGatheringEnv(max_episode_steps=2), "UD")
    assert terminated
    assert reward == pytest.approx(2 * 98 / 25)


def test_default_limit_is_40():
    env = gym.make(ID)
    assert env.spec.max_episode_steps is None
    assert walk(env, "U" * 40)[2:4] == (True, False)


def test_limit_through_make_is_never_bootstrapped():
    venv = make_vec_env(ID, n_envs=1, env_kwargs={"max_episode_steps": 5})
    venv.reset()
    for step in range(5):
        _, rewards, dones, infos = venv.step(np.array([UP]))
        assert dones[0] == (step == 4)
    assert rewards[0] == 0.0
    assert infos[0]["TimeLimit.truncated"] is False
    assert infos[0]["episode"]["l"] == 5


def test_limit_survives_spec_and_make_vec():
    env = gym.make(ID, max_episode_steps=20)
    assert not isinstance(env, TimeLimit)
    assert gym.make(env.spec).unwrapped.max_episode_steps == 20
    assert gym.make(env.spec, max_episode_steps=7).unwrapped.max_episode_steps == 7
    assert gym.make(ID).unwrapped.max_episode_steps == 40, "the registry itself must not have changed"
    venv = gym.make_vec(ID, num_envs=2, max_episode_steps=9)
    assert [single.unwrapped.max_episode_steps for single in venv.envs] == [9, 9]


def test_limit_does_not_disturb_further_wrappers():
    env = gym.wrappers.TransformReward(gym.make(ID, max_episode_steps=20), lambda reward: 2 * reward)
    again = gym.make(env.spec)
    assert again.unwrapped.max_episode_steps == 20
    assert walk(again, "D")[1] == pytest.approx(2 * 99 / 25)


def test_step_limit_of_task_refuses_other_envs():
    with pytest.raises(TypeError, match="CartPoleEnv is not a ResourceGatheringEnv"):
        step_limit_of_task(gym.make("CartPole-v1"))


def test_tour_survives_automatic_reset():
    venv = make_vec_env(ID, n_envs=1)
    venv.reset()
    for letter in GRAND_TOUR:
        _, rewards, dones, infos = venv.step(np.array(["UDLR".index(letter)]))
    assert dones[0]
    assert rewards[0] == 74.0
    assert venv.get_attr("path") == [[(4, 2)]]
    assert len(infos[0]["tour"]) == 27
    assert venv.get_attr("n_agents") == [25]
    assert venv.get_attr("population_id") == ["resource-gathering-5x5-home4,2"]


def test_path_and_vectors_are_not_overwritten():
    env = ResourceGatheringEnv()
    info = walk(env, "UD")[4]
    path, vector = env.path, info[REWARD_VECTOR]
    walk(env, "D")
    assert path == info["tour"] == [(4, 2), (3, 2), (4, 2)]
    assert vector[HOME_AGENT] == 98


def test_observations_are_not_overwritten():
    env = ResourceGatheringEnv()
    first, _ = env.reset()
    second, *_ = env.step(UP)
    assert first[0] == 1.0
    assert not np.shares_memory(first, second)


def test_other_shape():
    env = ResourceGatheringEnv(shape=[2, 3], home=np.array([0, 1]))
    assert env.n_agents == 6
    _, reward, _, _, info = walk(env, "RDLU")
    np.testing.assert_array_equal(info[REWARD_VECTOR], [0, 96, 96, 0, 96, 96])
    assert reward == 64.0


@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (1, 1)])
def test_thin_grids_stay_in_bounds(shape):
    env = ResourceGatheringEnv(shape=shape, home=(0, 0))
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(50):
        observation, _, terminated, _, _ = env.step(env.action_space.sample())
        assert observation in env.observation_space
        if terminated:
            env.reset()


def test_population_id():
    ids = {
        ResourceGatheringEnv().population_id,
        ResourceGatheringEnv(home=(4, 3)).population_id,
        ResourceGatheringEnv(shape=(6, 5)).population_id,
        ResourceGatheringEnv(shape=(5, 6)).population_id,
    }
    assert len(ids) == 4
    assert ResourceGatheringEnv(max_episode_steps=9, render_mode="ansi").population_id in ids


def test_welfare_bound():
    assert ResourceGatheringEnv().welfare_bound(1) == pytest.approx(74.0)
    # On two tiles each agent is best served by a tour of its own: 99 for home (a bump), 98 for the other.
    assert ResourceGatheringEnv(shape=(1, 2), home=(0, 0)).welfare_bound(2) == pytest.approx(98.5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"shape": (5,)}, r"shape=\(5,\) is not a pair"),
        ({"shape": "55"}, "shape='55' is not a pair"),
        ({"shape": (0, 5)}, "shape=0 does not do; give an integer of at least 1"),
        ({"shape": (2.5, 5)}, "shape=2.5 does not do"),
        ({"home": (5, 2)}, r"home=\(5, 2\) is not on the grid of shape \(5, 5\); give a row in 0..4"),
        ({"home": (4, 5)}, r"home=\(4, 5\) is not on the grid"),
        ({"home": (-1, 2)}, "home=-1 does not do; give an integer of at least 0"),
        ({"home": 3}, "home=3 is not a pair"),
        ({"max_episode_steps": 0}, "max_episode_steps=0 does not do; give an integer of at least 1"),
        ({"max_episode_steps": None}, "max_episode_steps=None does not do"),
        ({"render_mode": "human"}, "render_mode='human' is unknown; use one of"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ResourceGatheringEnv(**kwargs)


def test_bad_steps():
    env = ResourceGatheringEnv()
    with pytest.raises(ResetNeeded, match=r"call reset\(\)"):
        env.step(UP)
    env.reset()
    for action in (-1, 4):
        with pytest.raises(ValueError, match=f"action={action} is not a move"):
            env.step(action)
    env.step(DOWN)
    with pytest.raises(ResetNeeded, match="tour is over"):
        env.step(UP)


def test_render_ansi():
    env = ResourceGatheringEnv(shape=(2, 3), home=(1, 1), render_mode="ansi")
    walk(env, "UR")
    assert env.render() == ". o @\n. H .\nstep 2 of 40, 3 of 6 tiles"
    env.step(DOWN)
    env.step(LEFT)
    assert env.render() == ". o o\n. @ o\nstep 4 of 40, 4 of 6 tiles"


def test_render_rgb_array():
    env = ResourceGatheringEnv(render_mode="rgb_array")
    env.reset()
    start = env.render()
    assert start.shape == (510, 510, 3)
    assert start.dtype == np.uint8
    env.step(UP)
    side = 102
    moved = env.render()

    def tile(picture, row, col):
        return picture[row * side : (row + 1) * side, col * side : (col + 1) * side]

    changed = [
        (row, col) for row in range(5) for col in range(5) if not np.array_equal(tile(start, row, col), tile(moved, row, col))
    ]
    assert changed == [(3, 2), (4, 2)], "the walker has left home, and a new tile is visited"
    # The disc of the walker is bluer than red; it stands in the middle of its tile.
    red, _, blue = moved[int(3.5 * side), int(2.5 * side)].astype(int)
    assert blue > red + 100


@pytest.mark.parametrize(("shape", "side"), [((8, 8), 64), ((2, 2), 128), ((20, 4), 24), ((100, 3), 8)])
def test_picture_size(shape, side):
    env = ResourceGatheringEnv(shape=shape, home=(0, 0), render_mode="rgb_array")
    assert env.render().shape == (shape[0] * side, shape[1] * side, 3)


def test_render_without_mode_warns():
    env = ResourceGatheringEnv()
    env.reset()
    with pytest.warns(UserWarning, match="render_mode="):
        assert env.render() is None


def test_video_of_an_episode():
    env = gym.make(ID, render_mode="rgb_array_list")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        walk(env, "UD")
        assert len(env.render()) == 3
