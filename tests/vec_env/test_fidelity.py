"""Copies are made of environments that they are like; any other environment is trained in itself, with a warning."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import wrappers
from gymnasium.utils import RecordConstructorArgs

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.budget import warm_start
from sb3_rmdp.envs import ENV_IDS, VectorReward
from sb3_rmdp.vec_env import make_represented_vec_env, represented_vec_env
from sb3_rmdp.vec_env.fidelity import CopiesDifferError, check_copies

HOPPER = "rmdp/HopperVelocity-v0"


class Part:
    """Something that an environment is made of."""

    def __init__(self) -> None:
        self.mass, self.position = 1.0, np.zeros(2)


class Room(gym.Env):
    """Has all kinds of attributes: settings, state of an episode, counts of episodes, things of C."""

    observation_space, action_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64), gym.spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012
    n_agents, population_id = 2, "two"
    pay, limit = 0.0, 7

    def __init__(self, render_mode: str | None = None, size: int = 1):
        self.render_mode, self.size = render_mode, size
        self.config = {"goal": {"at": (1, 2)}, "seen": []}
        self.part, self.wishes, self.itself = Part(), np.array([1.0, np.nan]), self
        self.noise = np.random.default_rng()
        self.reward: Callable[[float], float] = lambda pay: pay

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t, self.config["seen"] = 0, []
        self.part.position[:] = self.np_random.normal(size=2)
        return np.array([1000.0]), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        self.config["seen"].append(action)  # type: ignore[attr-defined]
        self.part.position += 1.0
        self.noise.normal()
        pay = self.reward(self.pay)
        return np.array([1000.0 + action]), pay, False, self.t == 5, {"reward_vector": np.full(2, pay, np.float32)}

    def render(self) -> Any:
        return np.zeros((32, 32, 3), np.uint8)


class Counting(gym.Wrapper, RecordConstructorArgs):
    """A wrapper with a memory that nobody has heard of."""

    def __init__(self, env: gym.Env):
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self.episodes = 0

    def reset(self, **kwargs: Any) -> Any:
        self.episodes += 1
        return super().reset(**kwargs)


class Scaling(gym.RewardWrapper, RecordConstructorArgs):
    """Another one, without a memory."""

    def __init__(self, env: gym.Env, factor: float):
        RecordConstructorArgs.__init__(self, factor=factor)
        super().__init__(env)
        self.factor, self.last = factor, 0.0

    def reset(self, **kwargs: Any) -> Any:
        self.last = 0.0
        return super().reset(**kwargs)

    def reward(self, reward: Any) -> float:
        self.last = self.factor * float(reward)
        return self.last


@pytest.fixture(scope="module", autouse=True)
def registered() -> Any:
    gym.register("Room-v0", entry_point=Room)
    yield
    del gym.registry["Room-v0"]


def make_room(**kwargs: Any) -> Any:
    return gym.make("Room-v0", **kwargs)


def used(env: gym.Env, n_steps: int = 7) -> gym.Env:
    env.reset(seed=5)
    env.action_space.seed(5)
    for _ in range(n_steps):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    return env


def is_copied(env: gym.Env) -> bool:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = represented_vec_env(env, 2)
    assert (result is env) == any("take turns in the environment itself" in str(one.message) for one in caught)
    return result is not env


IDS = [*ENV_IDS, "CartPole-v1", "MountainCarContinuous-v0", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0"]
IDS += ["FrozenLake-v1", "CliffWalking-v1", "Blackjack-v1"]
IDS += [f"{name}-v5" for name in ("Reacher", "Pusher", "InvertedPendulum", "Humanoid", "Swimmer")]
REGISTERED = [env_id for env_id in IDS if env_id in gym.registry]


@pytest.mark.parametrize("env_id", [*REGISTERED, "Room-v0"])
def test_usual_environments_are_copied_fresh_and_used(env_id: str) -> None:
    env = gym.make(env_id)
    assert is_copied(env)
    for n_steps in (0, 3, 40):
        assert is_copied(used(env, n_steps)), n_steps
    env.close()


def test_rendering_changes_nothing() -> None:
    env = used(make_room(render_mode="rgb_array"))
    env.render()
    env.unwrapped.screen, env.unwrapped.viewers = object(), [object(), object()]
    assert is_copied(env)


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "TimeLimit": lambda env: wrappers.TimeLimit(env, 3),
    "FrameStackObservation": lambda env: wrappers.FrameStackObservation(env, 3),
    "TimeAwareObservation": lambda env: wrappers.TimeAwareObservation(wrappers.TimeLimit(env, 4)),
    "RecordEpisodeStatistics": wrappers.RecordEpisodeStatistics,
    "TransformReward": lambda env: wrappers.TransformReward(env, lambda reward: 2 * reward),
    "ClipReward": lambda env: wrappers.ClipReward(env, 0.0, 1.0),
    "VectorReward": lambda env: VectorReward(env, lambda *_: np.zeros(3), n_agents=3),
    "unknown, without a memory": lambda env: Scaling(env, 2.0),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_without_a_memory_are_copied(name: str) -> None:
    assert is_copied(WRAPPERS[name](make_room()))
    assert is_copied(used(WRAPPERS[name](make_room()), 18))


CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a class attribute": (lambda room: setattr(room, "pay", 5.0), "Room.pay"),
    "nothing in its place": (lambda room: setattr(room, "limit", None), "Room.limit"),
    "an attribute": (lambda room: setattr(room, "size", 2), "Room.size"),
    "a new one": (lambda room: setattr(room, "level", 3), "Room.level"),
    "within a dict": (lambda room: room.config["goal"].update(at=(1, 3)), "Room.config.goal.at.1"),
    "beside the state of an episode": (lambda room: room.config.update(hard=True), "Room.config.hard"),
    "of a part": (lambda room: setattr(room.part, "mass", 2.0), "Room.part.mass"),
    "an array": (lambda room: room.wishes.__setitem__(0, 2.0), "Room.wishes"),
    "a function": (lambda room: setattr(room, "reward", lambda pay: pay + 1), "Room.reward"),
    "a network": (lambda room: setattr(room, "net", th.nn.Linear(1, 1)), "Room.net"),
    "a method": (lambda room: setattr(room, "step", lambda action: None), "Room.step"),
}


@pytest.mark.parametrize("use", [lambda env: env, used], ids=["fresh", "used"])
@pytest.mark.parametrize("name", CHANGES)
def test_what_was_set_on_an_environment_is_not_lost(name: str, use: Callable[[Any], Any]) -> None:
    change, path = CHANGES[name]
    env = use(make_room())
    change(env.unwrapped)
    with pytest.raises(CopiesDifferError, match=rf"would not be like it \({path}[,)]"):
        make_represented_vec_env(env, 2)
    assert not is_copied(env)


def test_physics_that_were_changed_are_not_lost() -> None:
    for change in ("opt.gravity", "body_mass"):
        env = used(gym.make(HOPPER))
        array = env.unwrapped.model.opt.gravity if change == "opt.gravity" else env.unwrapped.model.body_mass  # type: ignore[attr-defined]
        array *= 0.5
        with pytest.raises(CopiesDifferError, match=r"HopperVelocityEnv\.model"):
            make_represented_vec_env(env, 2)


KEEPING: dict[str, tuple[Callable[[Any, Path], Any], str]] = {
    "NormalizeObservation": (lambda env, _: wrappers.NormalizeObservation(env), "NormalizeObservation keeps statistics"),
    "NormalizeReward": (lambda env, _: wrappers.NormalizeReward(env), "NormalizeReward keeps statistics"),
    "below another": (lambda env, _: wrappers.TimeLimit(wrappers.NormalizeObservation(env), 4), "keeps statistics"),
    "RecordVideo": (
        lambda env, folder: wrappers.RecordVideo(env, str(folder / "videos"), lambda _: True, disable_logger=True),
        "RecordVideo keeps files, all in one folder",
    ),
    "unknown": (lambda env, _: Counting(env), r"Counting\.episodes"),
}


@pytest.mark.parametrize("name", KEEPING)
def test_wrappers_with_a_memory_are_trained_in_themselves(name: str, tmp_path: Path) -> None:
    wrap, message = KEEPING[name]
    env = wrap(make_room(render_mode="rgb_array"), tmp_path)
    with pytest.raises(CopiesDifferError, match=message):
        make_represented_vec_env(env, 2)
    with pytest.warns(UserWarning, match=f"the 2 representatives take turns in the environment itself: .*{message}"):
        assert represented_vec_env(env, 2) is env


def test_attributes_of_wrappers_are_not_lost() -> None:
    env: Any = wrappers.TimeLimit(make_room(), 3)
    env._max_episode_steps = 7  # which the spec tells
    assert make_represented_vec_env(env, 2).get_attr("_max_episode_steps") == [7, 7]
    with pytest.raises(CopiesDifferError, match="other wrappers"):
        make_represented_vec_env(wrappers.TimeLimit(env, 3), 2)  # a spec has one limit
    env = wrappers.TimeAwareObservation(wrappers.TimeLimit(make_room(), 4))
    env.max_timesteps = 3
    with pytest.raises(CopiesDifferError, match=r"TimeAwareObservation\.max_timesteps"):
        make_represented_vec_env(env, 2)


def test_trained_and_evaluated_in_the_same_object() -> None:
    env = make_room()
    env.unwrapped.pay = 5.0
    with pytest.warns(UserWarning, match=r"take turns in the environment itself: copies of .* \(Room\.pay\)"):
        model = RepresentedPPO("MlpPolicy", env, k=2, n_steps=64, device="cpu", seed=0).learn(128)
    assert {info["r"] for info in model.ep_info_buffer or []} == {25.0}
    assert evaluate_welfare(model, env, 2).social_welfare == 25.0
    assert model.env is not None and model.env.num_envs == 1


@pytest.mark.filterwarnings("ignore:the 2 representatives take turns")
def test_statistics_of_a_wrapper_are_those_of_the_object() -> None:
    env = wrappers.NormalizeObservation(make_room())
    model = RepresentedPPO("MlpPolicy", env, k=2, n_steps=64, device="cpu", normalize_observations=False).learn(128)
    assert env.obs_rms.mean[0] > 999.0 and model.env is not None
    assert model.env.get_attr("obs_rms")[0] is env.obs_rms


def test_every_door_asks_the_same_question(tmp_path: Path) -> None:
    plain = make_room()
    model = RepresentedPPO("MlpPolicy", plain, k=1, n_steps=64, device="cpu", seed=0, assignment="em").learn(64)
    model.save(tmp_path / "model")
    env = make_room()
    env.unwrapped.pay = 5.0
    for door in (
        lambda: model.set_env(env),
        lambda: RepresentedPPO.load(tmp_path / "model", env=env, device="cpu"),
        lambda: warm_start(model, 2, env),
    ):
        with pytest.warns(UserWarning, match="take turns in the environment itself"):
            door()


def test_a_function_makes_whole_environments() -> None:
    def whole(size: int = 1) -> gym.Env:
        env = make_room(size=size)
        env.unwrapped.pay = 5.0
        return env

    venv = make_represented_vec_env(whole, 2, env_kwargs=dict(size=3))
    assert venv.get_attr("pay") == [5.0, 5.0] and venv.get_attr("size") == [3, 3]


def test_nobody_else_sees_that_it_was_looked_at() -> None:
    env = used(gym.make("CartPole-v1"))
    before = env.unwrapped.state.copy()  # type: ignore[attr-defined]
    random.seed(1), np.random.seed(1), th.manual_seed(1)
    drawn = random.random(), np.random.rand(), float(th.rand(1))
    random.seed(1), np.random.seed(1), th.manual_seed(1)
    check_copies(env, lambda: gym.make("CartPole-v1"))
    assert (random.random(), np.random.rand(), float(th.rand(1))) == drawn
    np.testing.assert_array_equal(env.unwrapped.state, before)  # type: ignore[attr-defined]
