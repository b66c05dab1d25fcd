"""What is set on environments after a vec env was made counts from the next step on, as it does in DummyVecEnv."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit, TransformReward
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.envs import ResourceGatheringEnv
from sb3_rmdp.vec_env import ResourceGatheringVecEnv, VelocityVecEnv
from sb3_rmdp.vec_env.batched import BatchedVecEnv
from tests.vec_env.copies import GRID, HOPPER, ROBOTS, assert_same_info, batched_class, make, random_actions

#: Of a task, what no two environments share, or what nobody sets
NOT_SET = {"np_random", "_np_random", "_np_random_seed", "spec", "mujoco_renderer", "model", "data", "metadata", "render_mode"}
NOT_SET |= {"action_space", "observation_space", "observation_structure", "_ezpickle_args", "_ezpickle_kwargs", "_weights"}
NOT_SET |= {"fullpath", "camera_name", "camera_id", "width", "height", "render_fps"}
#: Positions of the grid, which its own methods keep together
NOT_SET |= {"_tile", "_tiles", "_next", "_scaled", "_home", "path", "_n_visited"}

KINDS: dict[str, dict[str, Any]] = {
    GRID: dict(max_episode_steps=9),
    **{env_id: dict(kwargs, n_agents=5, max_episode_steps=30) for env_id, (kwargs, _) in ROBOTS.items()},
}
WITH_FORCES = dict(include_cfrc_ext_in_observation=True, max_episode_steps=30, n_agents=5)


def other(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return 0.5 * value + 0.125
    if isinstance(value, np.ndarray):
        return value + value.dtype.type(1)
    if isinstance(value, (tuple, list)):
        low, high = value
        return type(value)((low - 1, high - 1)) if isinstance(low, int) else type(value)((low / 2, min(high, 1e3) / 2))
    return None


def attributes() -> list[tuple[str, str]]:
    found = []
    for env_id, kwargs in KINDS.items():
        names = vars(gym.make(env_id, **kwargs).unwrapped)
        found += [(env_id, name) for name in sorted(names) if name not in NOT_SET]
    return found


def run(env: DummyVecEnv, actions: list[np.ndarray]) -> list[Any]:
    """What comes of actions, or the error that ends them."""
    steps: list[Any] = []
    for action in actions:
        try:
            observations, rewards, dones, infos = env.step(action)
        except Exception as error:
            steps.append(type(error))
            break
        steps.append((observations, rewards, dones, list(infos)))
    return steps


def assert_same_after(
    change: Callable[[DummyVecEnv], Any], env_id: str, n_steps: int = 14, **kwargs: Any
) -> list[DummyVecEnv]:
    pair = [make(env_id, 3, kind, **kwargs) for kind in (batched_class(env_id), DummyVecEnv)]
    actions = random_actions(pair[1], n_steps)
    runs = []
    for env in pair:
        assert isinstance(env, DummyVecEnv)
        env.reset()
        begin = run(env, actions[:4])
        change(env)
        runs.append([*begin, *run(env, actions[4:])])
    assert len(runs[0]) == len(runs[1])
    for ours, theirs in zip(*runs, strict=True):
        if isinstance(theirs, type):
            assert ours is theirs
            continue
        for value, expected in zip(ours[:3], theirs[:3], strict=True):
            np.testing.assert_array_equal(value, expected, strict=True)
        for info, expected in zip(ours[3], theirs[3], strict=True):
            assert_same_info(info, expected)
    return pair  # type: ignore[return-value]


def set_on(env: DummyVecEnv, name: str, which: list[int], value: Callable[[Any], Any] = other) -> None:
    for i in which:
        base: Any = env.envs[i].unwrapped
        setattr(base, name, value(getattr(base, name)))


@pytest.mark.parametrize("which", [[0, 1, 2], [0], [1]], ids=["all", "the first", "another"])
@pytest.mark.parametrize(("env_id", "name"), attributes())
def test_every_attribute_of_a_task(env_id: str, name: str, which: list[int]) -> None:
    assert_same_after(lambda env: set_on(env, name, which), env_id, **KINDS[env_id])


@pytest.mark.parametrize("name", ["_contact_force_range", "_main_body", "_include_cfrc_ext_in_observation", "frame_skip"])
def test_attributes_of_an_ant_that_feels_contacts(name: str) -> None:
    assert_same_after(lambda env: set_on(env, name, [0, 1, 2]), "rmdp/AntVelocity-v0", **WITH_FORCES)


def timestep(env: DummyVecEnv, which: list[int]) -> None:
    for i in which:
        env.envs[i].unwrapped.model.opt.timestep = 0.001  # type: ignore[attr-defined]


def gravity(env: DummyVecEnv, which: list[int]) -> None:
    for i in which:
        env.envs[i].unwrapped.model.opt.gravity[:] = 0.0  # type: ignore[attr-defined]


def another_simulation(env: DummyVecEnv, which: list[int]) -> None:
    for i in which:
        base: Any = env.envs[i].unwrapped
        base.model = mujoco.MjModel.from_xml_path(base.fullpath)
        base.model.body_mass *= 2.0
        base.data = mujoco.MjData(base.model)
        base.reset_model()


def start_in_place(env: DummyVecEnv, which: list[int]) -> None:
    for i in which:
        env.envs[i].unwrapped.init_qpos[1] += 0.25  # type: ignore[attr-defined]


def list_in_place(env: DummyVecEnv, which: list[int]) -> None:
    for one in env.envs:
        one.unwrapped._healthy_z_range = [0.0, 9.0]  # type: ignore[attr-defined]
    env.step(np.zeros((3, 3), dtype=np.float32))
    for i in which:
        env.envs[i].unwrapped._healthy_z_range[0] = 5.0  # type: ignore[attr-defined]


def equal_arrays(env: DummyVecEnv, which: list[int]) -> None:
    for i in which:
        env.envs[i].unwrapped.targets = np.array([0.0, 0.1, 0.2, 0.3, 0.4])  # type: ignore[attr-defined]


def features(env: DummyVecEnv, which: list[int]) -> None:
    factored: Any = gym.make(HOPPER, n_agents=5, n_features=30).unwrapped
    for i in which:
        base: Any = env.envs[i].unwrapped
        base._weights, base.feature_speeds = factored._weights, factored.feature_speeds


def time_limits(env: DummyVecEnv, which: list[int]) -> None:
    for i in which:
        env.envs[i].set_wrapper_attr("_max_episode_steps", 6)


def own_pay(env: DummyVecEnv, which: list[int]) -> None:
    for i in which:
        env.envs[i].unwrapped.pay = lambda velocity: (np.float64(3.0), np.full(5, 3.0, np.float32))  # type: ignore[attr-defined]


def own_step(env: DummyVecEnv, which: list[int]) -> None:
    for i in which:
        one: Any = env.envs[i].unwrapped
        step = one.step

        def doubled(action: Any, step: Any = step) -> Any:
            observation, reward, *others = step(action)
            return observation, 2 * reward, *others

        one.step = doubled


def no_step_of_the_monitor(env: DummyVecEnv, which: list[int]) -> None:
    for i in which:
        monitor: Any = env.envs[i]
        monitor.step = monitor.env.step


def wrapper_on_top(env: DummyVecEnv, which: list[int]) -> None:
    for i in which:
        env.envs[i] = TransformReward(env.envs[i], lambda reward: float(reward) + 1.0)


def wrapper_within(env: DummyVecEnv, which: list[int]) -> None:
    for i in which:
        monitor: Any = env.envs[i]
        monitor.env = TransformReward(monitor.env, lambda reward: float(reward) + 1.0)


def shorter_limit_within(env: DummyVecEnv, which: list[int]) -> None:
    for i in which:
        monitor: Any = env.envs[i]
        limit = TimeLimit(monitor.env.env, 6)
        limit._elapsed_steps = 4
        monitor.env = limit


def through_the_vec_env(env: DummyVecEnv, which: list[int]) -> None:
    env.set_attr("frame_skip", 1, indices=which)
    env.env_method("set_wrapper_attr", "_ctrl_cost_weight", 7.0, indices=which)


def drawn_for_people(env: DummyVecEnv, which: list[int]) -> None:
    for i in which:
        base: Any = env.envs[i].unwrapped
        base.render_mode, base.drawn = "human", []
        base.render = lambda base=base: base.drawn.append(1)


CHANGES = [timestep, gravity, another_simulation, start_in_place, list_in_place, equal_arrays, features, time_limits, own_pay]
CHANGES += [own_step, no_step_of_the_monitor, wrapper_on_top, wrapper_within, shorter_limit_within, through_the_vec_env]
CHANGES += [drawn_for_people]


@pytest.mark.parametrize("which", [[0, 1, 2], [1]], ids=["all", "one"])
@pytest.mark.parametrize("change", CHANGES)
def test_other_changes_of_a_robot(change: Callable[[DummyVecEnv, list[int]], None], which: list[int]) -> None:
    ours, dummy = assert_same_after(lambda env: change(env, which), HOPPER, 24, **KINDS[HOPPER])
    if change is drawn_for_people:
        counts = [[len(env.envs[i].unwrapped.drawn) for i in which] for env in (ours, dummy)]  # type: ignore[attr-defined]
        assert counts[0] == counts[1] and min(counts[0]) > 0


def grid_limit(env: DummyVecEnv, which: list[int]) -> None:
    for i in which:
        env.envs[i].unwrapped.max_episode_steps = 3  # type: ignore[attr-defined]


def another_home(env: DummyVecEnv, which: list[int]) -> None:
    for i in which:
        base: Any = env.envs[i].unwrapped
        base.__init__(home=(0, 0), max_episode_steps=7)
        base.reset()


@pytest.mark.parametrize("which", [[0, 1, 2], [1]], ids=["all", "one"])
@pytest.mark.parametrize(
    "change", [grid_limit, another_home, own_step, no_step_of_the_monitor, wrapper_on_top, wrapper_within]
)
def test_other_changes_of_the_grid(change: Callable[[DummyVecEnv, list[int]], None], which: list[int]) -> None:
    assert_same_after(lambda env: change(env, which), GRID, 40, **KINDS[GRID])


def test_they_are_stepped_together_again_once_they_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make(HOPPER, 3, VelocityVecEnv, **KINDS[HOPPER])
    assert isinstance(env, VelocityVecEnv)
    together = []
    advance = VelocityVecEnv._advance
    monkeypatch.setattr(VelocityVecEnv, "_advance", lambda self, actions: together.append(1) or advance(self, actions))
    actions = random_actions(env, 1)[0]

    def steps() -> int:
        together.clear()
        for _ in range(5):
            env.step(actions)
        return len(together)

    env.reset()
    assert steps() == 3
    set_on(env, "frame_skip", [0], lambda _: 2)
    assert steps() == 0
    set_on(env, "frame_skip", [1, 2], lambda _: 2)
    assert steps() == 5
    env.envs[1].unwrapped.pay = None  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        steps()
    del env.envs[1].unwrapped.pay  # type: ignore[attr-defined]
    assert steps() == 5
    env.close()


@pytest.mark.parametrize("env_id", [GRID, HOPPER])
def test_a_training_that_watches_its_environments_still_steps_them_together(
    env_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = batched_class(env_id)
    together = []
    advance = kind._advance  # type: ignore[attr-defined]
    monkeypatch.setattr(kind, "_advance", lambda self, actions: together.append(1) or advance(self, actions))
    env = make(env_id, 2, kind, **KINDS[env_id])
    RepresentedPPO("MlpPolicy", env, k=2, n_steps=20, batch_size=20, device="cpu").learn(40)
    assert isinstance(env, BatchedVecEnv) and len(together) == 18


def test_methods_of_ones_own_are_refused_from_the_beginning() -> None:
    grid: Any = ResourceGatheringEnv()
    grid.step = lambda action: None
    with pytest.raises(ValueError, match="ResourceGatheringEnv has a method step of its own; use SB3's DummyVecEnv"):
        ResourceGatheringVecEnv([lambda: Monitor(grid)])
