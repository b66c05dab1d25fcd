"""EnvPool in the place of gymnasium: what is refused, seeds, copies, records, and training in it."""

from __future__ import annotations

import copy
import csv
import functools
import importlib.util
import os
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, VecNormalize, VecVideoRecorder

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.envs import REWARD_FEATURES, REWARD_VECTOR, HopperVelocityEnv, ResourceGatheringEnv
from sb3_rmdp.vec_env import BatchInfos, EnvPoolVecEnv, make_represented_vec_env

CHEETAH = "rmdp/HalfCheetahVelocity-v0"
ANT = "rmdp/AntVelocity-v0"
HOPPER = "rmdp/HopperVelocity-v0"
WALKER = "rmdp/Walker2dVelocity-v0"

needs_envpool = pytest.mark.skipif(importlib.util.find_spec("envpool") is None, reason="needs EnvPool")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused before EnvPool is asked for anything."""
    monkeypatch.setitem(sys.modules, "envpool", types.ModuleType("envpool"))


def make(env_id: str, n_envs: int = 3, n_threads: int = 2, seed: int | None = 3, **kwargs: Any) -> VecEnv:
    kind: Any = functools.partial(EnvPoolVecEnv, n_threads=n_threads)
    return make_represented_vec_env(env_id, 1, n_envs=n_envs, seed=seed, env_kwargs=kwargs, vec_env_cls=kind)


def random_actions(env: VecEnv, n_steps: int) -> np.ndarray:
    shape = (n_steps, env.num_envs, *env.action_space.shape)  # type: ignore[misc]
    return np.random.default_rng(11).uniform(-1.0, 1.0, shape).astype(np.float32)


def base_of(env: VecEnv) -> Any:
    return env.get_attr("unwrapped", indices=0)[0]


# Without EnvPool


def test_envpool_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(ImportError, match=r'needs EnvPool: pip install "sb3_rmdp\[envpool\]"'):
        make_represented_vec_env(HOPPER, 2, vec_env_cls=EnvPoolVecEnv)


class OwnHopper(HopperVelocityEnv):
    """A subclass, whose step might be another."""


REFUSED: dict[str, tuple[Callable[[], gym.Env], str]] = {
    "grid": (ResourceGatheringEnv, "ResourceGatheringEnv is none of HalfCheetahVelocityEnv, Ant"),
    "cart": (lambda: gym.make("CartPole-v1"), "CartPoleEnv is none of"),
    "base": (lambda: gym.make("Hopper-v5"), "HopperEnv is none of"),
    "subclass": (OwnHopper, "OwnHopper is none of"),
    "wrapper": (lambda: RecordEpisodeStatistics(gym.make(HOPPER)), "the wrapper RecordEpisodeStatistics wants to see"),
    "model": (lambda: gym.make(WALKER, xml_file="walker2d.xml"), r"xml_file=.*walker2d\.xml' is another model"),
    "body": (lambda: gym.make(ANT, main_body=2), "the speed of the torso, not of main_body=2"),
    "height": (lambda: gym.make(HOPPER, healthy_z_range=(0.7, 2.0)), r"no upper end of healthy_z_range=\(0.7, 2.0\)"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.usefixtures("stand_in")
def test_refused(case: str) -> None:
    env_fn, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as error:
        EnvPoolVecEnv([env_fn])
    assert str(error.value).endswith("use fastest_vec_env in its place")


@pytest.mark.usefixtures("stand_in")
def test_human_mode_and_threads() -> None:
    env = HopperVelocityEnv()
    env.render_mode = "human"
    with pytest.raises(ValueError, match='render_mode="human" draws'):
        EnvPoolVecEnv([lambda: env])
    with pytest.raises(ValueError, match="n_threads=0 does not do"):
        EnvPoolVecEnv([HopperVelocityEnv], n_threads=0)
    assert EnvPoolVecEnv([HopperVelocityEnv] * 3, n_threads=8).n_threads == 3
    assert EnvPoolVecEnv([HopperVelocityEnv] * 300).n_threads == os.cpu_count()


@pytest.mark.usefixtures("stand_in")
def test_questions_are_answered_by_one_environment() -> None:
    calls: list[gym.Env] = []

    def make_one() -> gym.Env:
        calls.append(gym.make(HOPPER, n_agents=5, render_mode="rgb_array"))
        return calls[-1]

    env = EnvPoolVecEnv([make_one] * 4)
    (one,) = calls
    assert env.get_attr("population_id") == [one.get_wrapper_attr("population_id")] * 4
    assert env.get_attr("n_agents", indices=[0, 3]) == [5, 5] and env.get_attr("unwrapped", indices=2) == [one.unwrapped]
    assert env.env_method("welfare_bound", 2) == [one.get_wrapper_attr("welfare_bound")(2)] * 4
    assert env.env_method("welfare_bound", k=2, indices=1) == env.env_method("welfare_bound", 2, indices=[3])
    assert env.has_attr("targets") and not env.has_attr("nonsense") and not env.has_attr("data")
    assert env.env_is_wrapped(Monitor) == [True] * 4 and env.env_is_wrapped(Monitor, indices=[1]) == [True]
    assert env.env_is_wrapped(TimeLimit) == [True] * 4 and env.env_is_wrapped(RecordEpisodeStatistics) == [False] * 4
    assert env.action_space == one.action_space and env.observation_space == one.observation_space
    for name in ("reset", "set_state", "get_episode_rewards"):
        with pytest.raises(AttributeError, match=f"cannot be asked for '{name}' one by one: use VelocityVecEnv"):
            env.env_method(name)
    with pytest.raises(NotImplementedError, match="'targets' cannot be set within EnvPool: make another"):
        env.set_attr("targets", [1.0])
    with pytest.raises(NotImplementedError, match="does not render: use VelocityVecEnv or DummyVecEnv"):
        env.render()
    with pytest.raises(RuntimeError, match=r"call reset\(\) before"):
        env.step(np.zeros((4, 3)))


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("actions", [np.zeros((2, 4)), np.zeros((3, 3)), np.zeros(3), np.full((2, 3), "a"), [[0.0] * 2] * 2])
def test_wrong_actions(actions: Any) -> None:
    env = EnvPoolVecEnv([HopperVelocityEnv] * 2)
    with pytest.raises(ValueError, match=r"give one row of numbers per environment, shape \(2, 3\)"):
        env.step(actions)


# Seeds, copies, threads


def played(env: VecEnv, n_steps: int = 40) -> np.ndarray:
    return np.array([env.reset(), *(env.step(actions)[0] for actions in random_actions(env, n_steps))])


@needs_envpool
def test_seeds() -> None:
    first = make(HOPPER, 3)
    run = played(first)
    np.testing.assert_array_equal(run, played(make(HOPPER, 3, n_threads=1)))
    runs = [played(make(CHEETAH, 30, n_threads=n_threads, max_episode_steps=7)) for n_threads in (1, 4)]
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(run[0, 1:], make(HOPPER, 2, seed=4).reset())  # copy i has seed + i
    assert not np.array_equal(run[0, 0], run[0, 1])
    assert not np.array_equal(run, played(first))  # goes on
    first.seed(3)
    np.testing.assert_array_equal(run, played(first))
    large = 2**32 - 2  # as SB3 draws them
    for seed in (large, None):
        first.seed(seed), first.reset()
    one, other = (make(HOPPER, seed=None).reset() for _ in range(2))
    assert not np.array_equal(one, other)  # type: ignore[arg-type]


@needs_envpool
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_begin_anew(clone: Callable[[VecEnv], VecEnv]) -> None:
    env = EnvPoolVecEnv([HopperVelocityEnv] * 3)
    env.seed(5)
    run = played(env)
    again = clone(env)
    assert again.get_attr("population_id") == env.get_attr("population_id")
    with pytest.raises(RuntimeError, match="call reset"):
        again.step(np.zeros((3, 3)))
    again.seed(5)
    np.testing.assert_array_equal(run, played(again))


@needs_envpool
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux does")
def test_close_ends_threads() -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/task"))

    env = make(HOPPER, 9, n_threads=3)
    before = count()
    env.reset()
    assert count() >= before + 3
    env.close()
    assert count() <= before


# Under SB3


@needs_envpool
def test_records_go_to_the_file_of_the_first_monitor(tmp_path: Path) -> None:
    env = make_represented_vec_env(HOPPER, 3, seed=1, monitor_dir=str(tmp_path), vec_env_cls=EnvPoolVecEnv)
    env.reset()
    ended = [info["episode"] for actions in random_actions(env, 90) for info in env.step(actions)[3] if "episode" in info]
    env.close()
    (path,) = tmp_path.iterdir()
    with open(path) as file:
        assert file.readline().startswith('#{"t_start"')
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert path.name == "0.monitor.csv" and rows == ended and len(rows) > 6


@needs_envpool
def test_under_wrappers() -> None:
    def run(wrap: Callable[[VecEnv], VecEnv]) -> tuple[VecEnv, list[tuple[Any, ...]]]:
        env = wrap(make(HOPPER, max_episode_steps=15))
        env.reset()
        return env, [env.step(actions) for actions in random_actions(env, 60)]

    _, plain = run(lambda env: env)
    with pytest.warns(UserWarning, match="already wrapped"):
        _, monitored = run(VecMonitor)
    normalized, scaled = run(lambda env: VecNormalize(env, norm_reward=False))
    assert isinstance(normalized, VecNormalize) and normalized.obs_rms.count > 180  # type: ignore[attr-defined]
    n_ends = 0
    for step, other, third in zip(plain, monitored, scaled, strict=True):
        np.testing.assert_array_equal(step[0], other[0])
        assert not np.array_equal(step[0], third[0])
        for info, seen, scaled_info in zip(step[3], other[3], third[3], strict=True):
            if "episode" in info:
                n_ends += 1
                assert seen["episode"]["l"] == info["episode"]["l"] == scaled_info["episode"]["l"]
                assert seen["episode"]["r"] == pytest.approx(info["episode"]["r"], abs=1e-5)
                assert not np.array_equal(info["terminal_observation"], scaled_info["terminal_observation"])
    assert n_ends > 9
    with pytest.raises(NotImplementedError, match="does not render"):
        VecVideoRecorder(make(HOPPER), "unused", lambda step: step == 0).reset()


@needs_envpool
@pytest.mark.parametrize("normalize", [False, True])
def test_training(normalize: bool, tmp_path: Path) -> None:
    """With five copies for three representatives; time-outs are bootstrapped from where they happened."""
    env = make_represented_vec_env(
        WALKER, 3, n_envs=5, seed=2, vec_env_cls=EnvPoolVecEnv, env_kwargs=dict(max_episode_steps=12, n_agents=9)
    )
    env = VecNormalize(env, norm_reward=False) if normalize else env
    model = RepresentedPPO("MlpPolicy", env, k=3, n_steps=32, batch_size=32, n_epochs=2, seed=0, device="cpu")
    ends: list[dict[str, Any]] = []
    bootstrapped: list[tuple[int, int]] = []
    bootstrap = model.rollout_buffer.bootstrap

    def spy(steps: list[int], envs: list[int], values: np.ndarray) -> None:
        bootstrapped.extend(zip(steps, envs, strict=True))
        bootstrap(steps, envs, values)

    def note(local: dict[str, Any], _: Any) -> bool:
        ends.extend(info for info, done in zip(local["infos"], local["dones"], strict=True) if done)
        return True

    model.rollout_buffer.bootstrap = spy  # type: ignore[method-assign]
    before = {name: value.clone() for name, value in model.policy.named_parameters()}
    model.learn(2 * 32 * 5, callback=note)
    assert any((value != before[name]).any() for name, value in model.policy.named_parameters())
    truncated = sum(info["TimeLimit.truncated"] for info in ends)
    assert 0 < truncated == len(bootstrapped) < len(ends) == len(model.ep_info_buffer or [])
    assert model.logger.name_to_value["rollout/ep_rew_mean"] == pytest.approx(
        np.mean([info["episode"]["r"] for info in ends]), abs=1e-6
    )
    welfare = evaluate_welfare(model, env, 2)
    assert welfare.utilities.shape == (9, 3) and welfare.optimum == base_of(env).welfare_bound(3)
    model.save(tmp_path / "model")
    loaded = RepresentedPPO.load(tmp_path / "model", device="cpu")
    loaded.set_env(env)
    loaded.learn(32 * 5, reset_num_timesteps=False)
    assert loaded.num_timesteps == 3 * 32 * 5
    other = make(WALKER, 3, n_agents=8)
    with pytest.raises(ValueError, match="agents"):
        RepresentedPPO.load(tmp_path / "model", env=other, device="cpu")


@needs_envpool
def test_factored_rewards() -> None:
    """The features of the same speeds, and what they are worth to the mean agent."""
    plain, factored = make(HOPPER), make(HOPPER, n_features=60)
    np.testing.assert_array_equal(plain.reset(), factored.reset())
    base = base_of(factored)
    for actions in random_actions(plain, 40):
        (_, rewards, _, infos), (_, others, _, other_infos) = factored.step(actions), plain.step(actions)
        assert isinstance(infos, BatchInfos) and infos.reward_vectors is not None
        np.testing.assert_allclose(rewards, (infos.reward_vectors @ base.reward_weights.T).mean(axis=1), atol=1e-7)
        np.testing.assert_allclose(rewards, others, atol=0.1 * 11 / 59)
        for info, other in zip(infos, other_infos, strict=True):
            assert info.keys() ^ other.keys() == {REWARD_FEATURES, REWARD_VECTOR}
            if 0.0 < info["x_velocity"] < 2.5:
                assert info[REWARD_FEATURES] @ base.feature_speeds == pytest.approx(info["x_velocity"], abs=1e-5)
    RepresentedPPO("MlpPolicy", factored, k=2, n_steps=32, batch_size=32, n_epochs=1, seed=0, device="cpu").learn(192)


SET_LATER: list[Callable[[Any], None]] = [
    lambda base: setattr(base, "frame_skip", 1),
    lambda base: setattr(base, "_terminate_when_unhealthy", False),
    lambda base: setattr(base, "_reset_noise_scale", 0.5),
    lambda base: setattr(base.model.opt, "timestep", 0.001),
]


@needs_envpool
@pytest.mark.parametrize("change", SET_LATER)
def test_settings_that_copies_would_not_hear_of_are_refused(change: Callable[[Any], None]) -> None:
    env = make(HOPPER)
    env.reset()
    change(base_of(env))
    for call in (env.reset, lambda: env.step(random_actions(env, 1)[0])):
        with pytest.raises(ValueError, match="copies within EnvPool keep theirs: make another vec env"):
            call()


@needs_envpool
def test_agents_and_time_limits_that_are_set_later_count() -> None:
    env = make(HOPPER, n_agents=2, terminate_when_unhealthy=False)
    env.reset()
    base_of(env).targets = np.array([0.0, 0.0])
    env.env_method("set_wrapper_attr", "_max_episode_steps", 3, indices=0)
    for step in range(3):
        _, _, dones, infos = env.step(np.zeros((3, 3), dtype=np.float32))
        assert infos[0][REWARD_VECTOR][0] == infos[0][REWARD_VECTOR][1]
        assert dones.all() == (step == 2)
