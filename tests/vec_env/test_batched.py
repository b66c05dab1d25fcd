"""Vec envs that step copies of a task together are DummyVecEnv, bit for bit; only the work is less."""

from __future__ import annotations

import copy
import csv
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium.error import ResetNeeded
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.envs import REWARD_FEATURES, REWARD_VECTOR, HopperVelocityEnv, ResourceGatheringEnv
from sb3_rmdp.vec_env import ResourceGatheringVecEnv, VelocityVecEnv, WelfareVecEnv, velocity
from tests.vec_env.copies import GRID, HOPPER, ROBOTS, assert_same, assert_same_info, batched_class, make, random_actions

OTHER_SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("rmdp/AntVelocity-v0", dict(include_cfrc_ext_in_observation=True, main_body="torso", contact_force_range=(-0.5, 0.5))),
    ("rmdp/AntVelocity-v0", dict(exclude_current_positions_from_observation=False, terminate_when_unhealthy=False)),
    ("rmdp/HalfCheetahVelocity-v0", dict(exclude_current_positions_from_observation=False, frame_skip=5, n_agents=1)),
    (HOPPER, dict(healthy_state_range=(-3.0, 3.0), healthy_reward=2.0, ctrl_cost_weight=0.5, n_agents=300)),
    ("rmdp/Walker2dVelocity-v0", dict(healthy_angle_range=(-0.1, 0.1), terminate_when_unhealthy=False, targets=[0.5, 1.0])),
    ("rmdp/Walker2dVelocity-v0", dict(exclude_current_positions_from_observation=False, forward_reward_weight=2.0)),
    *((env_id, dict(n_features=24, n_agents=7)) for env_id in ROBOTS),
    (HOPPER, dict(n_features=300, targets=[-1.0, 0.0, 4.0])),
]


@pytest.mark.parametrize("n_envs", [1, 3, 7])
@pytest.mark.parametrize("monitor", [True, False])
@pytest.mark.parametrize("env_id", [GRID, *ROBOTS])
def test_is_dummy_vec_env(env_id: str, monitor: bool, n_envs: int) -> None:
    kwargs, n_steps = ROBOTS.get(env_id, (dict(max_episode_steps=6), 90))
    ours = make(env_id, n_envs, batched_class(env_id), monitor, **kwargs)
    dummy = make(env_id, n_envs, DummyVecEnv, monitor, **kwargs)
    ends = assert_same(ours, dummy, random_actions(dummy, n_steps))
    truncated = {info["TimeLimit.truncated"] for info in ends}
    assert truncated == ({False} if env_id == GRID else {True} if "HalfCheetah" in env_id else {True, False})
    assert len(ends) >= 2 * n_envs
    assert all(("episode" in info) == monitor for info in ends)
    # And once more, from seeds that follow from the old ones, while a step is under way that nobody has waited for
    ends = assert_same(ours, dummy, random_actions(dummy, n_steps)[::-1])
    assert len(ends) >= 2 * n_envs
    if monitor:
        for name in ("get_total_steps", "get_episode_lengths", "get_episode_rewards"):
            assert ours.env_method(name) == dummy.env_method(name)
    for env in (ours, dummy):
        env.close()


@pytest.mark.parametrize(("env_id", "kwargs"), OTHER_SETTINGS)
def test_settings_of_the_robots(env_id: str, kwargs: dict[str, Any]) -> None:
    pair = [make(env_id, 3, kind, max_episode_steps=40, **kwargs) for kind in (VelocityVecEnv, DummyVecEnv)]
    assert assert_same(*pair, random_actions(pair[0], 60))
    key = pair[0].step(np.zeros_like(random_actions(pair[0], 1)[0]))[3].key  # type: ignore[attr-defined]
    assert key == (REWARD_FEATURES if "n_features" in kwargs else REWARD_VECTOR)


def test_factored_rewards_are_not_multiplied_out(monkeypatch: pytest.MonkeyPatch) -> None:
    envs = [make(HOPPER, 3, kind, n_features=40, n_agents=500) for kind in (VelocityVecEnv, DummyVecEnv)]
    monkeypatch.setattr("sb3_rmdp.envs.velocity.velocity_rewards", None)
    assert_same(*envs, random_actions(envs[0], 20))
    infos = envs[0].step(random_actions(envs[0], 1)[0])[3]
    assert all(REWARD_VECTOR not in info and info[REWARD_FEATURES].shape == (40,) for info in infos)


@pytest.mark.parametrize("kwargs", [dict(shape=(2, 3), home=(0, 1)), dict(max_episode_steps=120, shape=(1, 2), home=(0, 0))])
def test_settings_of_the_grid(kwargs: dict[str, Any]) -> None:
    pair = [make(GRID, 3, kind, **kwargs) for kind in (ResourceGatheringVecEnv, DummyVecEnv)]
    assert assert_same(*pair, random_actions(pair[0], 100))
    if kwargs["shape"] == (1, 2):  # the second tile's wall is hit until the return costs more than it brings
        away = [np.full(3, 3)] * 110 + [np.full(3, 2)]
        assert [info[REWARD_VECTOR].tolist() for info in assert_same(*pair, away)] == [[-11.0, -11.0]] * 3


def test_a_time_limit_around_the_grid() -> None:
    fns = [lambda: TimeLimit(ResourceGatheringEnv(), 5)] * 3
    ours, dummy = ResourceGatheringVecEnv(fns), DummyVecEnv(fns)  # type: ignore[arg-type]
    ends = assert_same(ours, dummy, random_actions(dummy, 40))
    assert {info["TimeLimit.truncated"] for info in ends} == {True, False}


def test_the_time_limit_of_rl_zoo() -> None:
    patches = pytest.importorskip("rl_zoo3.gym_patches")
    fns = [lambda: patches.PatchedTimeLimit(HopperVelocityEnv(), 15)] * 3
    ours, dummy = VelocityVecEnv(fns), DummyVecEnv(fns)
    ours.seed(3), dummy.seed(3)
    ends = assert_same(ours, dummy, random_actions(dummy, 90))
    assert {info["TimeLimit.truncated"] for info in ends} == {True, False}


WRAPPERS: dict[str, Callable[[VecEnv], VecEnv]] = {
    "VecNormalize": lambda env: VecNormalize(env, norm_reward=False),
    "VecMonitor": VecMonitor,
    "VecFrameStack": lambda env: VecFrameStack(env, 3),
    "VecCheckNan": lambda env: VecCheckNan(env, raise_exception=True),
    "WelfareVecEnv": WelfareVecEnv,
}


@pytest.mark.parametrize("env_id", [GRID, HOPPER])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_under_wrappers_of_sb3(wrapper: str, env_id: str) -> None:
    kwargs, n_steps = ROBOTS.get(env_id, ({}, 90))
    ours, dummy = (
        WRAPPERS[wrapper](make(env_id, 3, kind, monitor=wrapper != "VecMonitor", **kwargs))
        for kind in (batched_class(env_id), DummyVecEnv)
    )
    ends = assert_same(ours, dummy, random_actions(dummy, n_steps))
    assert len(ends) >= 3 and all("episode" in info for info in ends)


SMALL: dict[str, Any] = dict(k=3, n_steps=64, batch_size=32, n_epochs=2, seed=0, device="cpu")


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(("env_id", "more"), [(GRID, {}), (HOPPER, {}), (HOPPER, dict(n_features=30))])
def test_training_ends_with_the_same_weights(env_id: str, more: dict[str, Any], normalize: bool) -> None:
    kwargs, _ = ROBOTS.get(env_id, ({}, 0))
    models = []
    for kind in (batched_class(env_id), DummyVecEnv):
        env = make(env_id, 3, kind, **kwargs, **more)
        env = VecNormalize(env, norm_reward=False) if normalize else env
        model = RepresentedPPO("MlpPolicy", env, assignment_kwargs=dict(warm_start=0), **SMALL)
        models.append(model.learn(3 * 64 * 3))
    ours, dummy = (model.policy.state_dict() for model in models)
    assert all(th.equal(value, dummy[name]) for name, value in ours.items())
    episodes = [[(episode["r"], episode["l"]) for episode in model.ep_info_buffer or []] for model in models]
    assert episodes[0] == episodes[1] and len(episodes[0]) > 5


def test_algorithms_of_sb3_can_be_trained_in_it() -> None:
    weights = []
    for kind in (ResourceGatheringVecEnv, DummyVecEnv):
        model = PPO("MlpPolicy", make(GRID, 3, kind), n_steps=32, batch_size=32, n_epochs=1, seed=0, device="cpu")
        weights.append(model.learn(192).policy.state_dict())
    assert all(th.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_training_looks_at_ends_of_episodes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[tuple[int, Any]] = []
    of_robot = velocity.ROBOTS[HopperVelocityEnv].info
    monkeypatch.setattr(
        velocity.ROBOTS[HopperVelocityEnv], "info", lambda self, *args: built.append(args[2]) or of_robot(self, *args)
    )
    env = make(HOPPER, 3, VelocityVecEnv)
    model = RepresentedPPO("MlpPolicy", env, **SMALL).learn(192)
    n_episodes = sum(len(episodes) for episodes in env.env_method("get_episode_lengths"))
    assert 0 < n_episodes < 40
    assert len(built) == n_episodes == len(model.ep_info_buffer or [])


def rows(path: Path) -> list[tuple[str, ...]]:
    with open(path) as file:
        assert file.readline().startswith('#{"t_start"')
        return [(row["r"], row["l"], row.get("x_velocity", "")) for row in csv.DictReader(file)]


def test_monitor_files(tmp_path: Path) -> None:
    kwargs, n_steps = ROBOTS[HOPPER]
    for kind in (VelocityVecEnv, DummyVecEnv):
        env = make_vec_env(HOPPER, 3, seed=3, env_kwargs=kwargs, vec_env_cls=kind, monitor_dir=str(tmp_path / kind.__name__),
                           monitor_kwargs=dict(info_keywords=("x_velocity",)))  # fmt: skip
        env.reset()
        for action in random_actions(env, n_steps):
            env.step(action)
        env.close()
    for rank in range(3):
        ours, dummy = (rows(tmp_path / kind.__name__ / f"{rank}.monitor.csv") for kind in (VelocityVecEnv, DummyVecEnv))
        assert ours == dummy and len(ours) >= 3


@pytest.mark.parametrize("env_id", [GRID, HOPPER])
def test_state_is_that_of_the_environments(env_id: str) -> None:
    """Whoever goes past the vec env, between steps, is noticed."""
    pair = [make(env_id, 3, kind) for kind in (batched_class(env_id), DummyVecEnv)]
    actions = random_actions(pair[0], 40)
    if env_id == GRID:
        actions = [np.full(3, 0)] * 4  # up, away from home
    for env in pair:
        env.reset()
        for action in actions[:4]:
            env.step(action)
        env.env_method("step", actions[0][1], indices=[1])
        env.env_method("reset", indices=[2])
        if env_id == HOPPER:
            data = env.get_attr("data", indices=[0])[0]
            env.env_method("set_state", data.qpos + 0.01, data.qvel * 0.5, indices=[0])
    if env_id == GRID:
        assert pair[0].get_attr("path") == pair[1].get_attr("path")
        np.testing.assert_array_equal(pair[0].render(), pair[1].render())  # type: ignore[arg-type]
    for action in [*actions, *(random_actions(pair[0], 40))]:
        steps = [env.step(action) for env in pair]
        for value, other in zip(steps[0][:3], steps[1][:3], strict=True):
            np.testing.assert_array_equal(value, other)  # type: ignore[arg-type]
        for info, other_info in zip(steps[0][3], steps[1][3], strict=True):
            assert_same_info(info, other_info)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_of_the_whole(clone: Callable[[VecEnv], VecEnv]) -> None:
    fns = [ResourceGatheringEnv] * 3
    ours, dummy = ResourceGatheringVecEnv(fns), DummyVecEnv(fns)  # type: ignore[arg-type]
    actions = random_actions(dummy, 30)
    assert_same(ours, dummy, actions)
    again = clone(ours)  # in the middle of episodes
    assert_same(ours, dummy, actions[::-1])
    steps = [env.step(actions[0]) for env in (clone(ours), ours)]
    np.testing.assert_array_equal(steps[0][0], steps[1][0])  # type: ignore[arg-type]
    assert_same(again, dummy, actions)
    robots = VelocityVecEnv([HopperVelocityEnv] * 2, n_threads=2)
    robots.reset()
    again = clone(robots)
    again.seed(5), robots.seed(5)
    assert_same(again, robots, random_actions(robots, 20))
    for env in (robots, again):
        env.close()


def test_before_the_first_reset() -> None:
    for env_id in (GRID, HOPPER):
        for monitor, error in ((True, RuntimeError), (False, ResetNeeded)):
            env = make(env_id, 2, batched_class(env_id), monitor)
            with pytest.raises(error, match="reset"):
                env.step(random_actions(env, 1)[0])


def test_an_episode_that_ended_behind_the_back() -> None:
    env = make(HOPPER, 2, VelocityVecEnv, max_episode_steps=5)
    env.reset()
    for action in random_actions(env, 3):
        env.step(action)
    env.env_method("step", action[1], indices=[1]), env.env_method("step", action[1], indices=[1])
    with pytest.raises(RuntimeError, match="needs reset"):
        env.step(action)


@pytest.mark.parametrize("after", [0, 5])
@pytest.mark.parametrize(
    ("env_id", "action", "error", "message"),
    [
        (GRID, np.array([0, 4]), ValueError, "action=4 is not a move"),
        (GRID, np.array([-1, 0]), ValueError, "action=-1 is not a move"),
        (GRID, np.array([0.0, 1.0]), TypeError, "integer"),
        (HOPPER, np.zeros((2, 4), np.float32), ValueError, "Action dimension mismatch"),
        (HOPPER, np.zeros(2, np.float32), ValueError, "Action dimension mismatch"),
    ],
)
def test_wrong_actions(env_id: str, action: np.ndarray, error: type[Exception], message: str, after: int) -> None:
    env = make(env_id, 2, batched_class(env_id))
    env.reset()
    for good in random_actions(env, after):
        env.step(good)
    with pytest.raises(error, match=message):
        env.step(action)
