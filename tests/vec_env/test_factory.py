"""The fastest vec env is chosen where it gives the same results, and only there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.envs import HopperVelocityEnv, ResourceGatheringEnv, VectorReward
from sb3_rmdp.vec_env import (
    ResourceGatheringVecEnv,
    VelocityVecEnv,
    fastest_vec_env,
    make_represented_vec_env,
    represented_vec_env,
)
from tests.probes import TwoGroups

GRID = "rmdp/ResourceGathering-v0"
HOPPER = "rmdp/HopperVelocity-v0"


class OwnHopper(HopperVelocityEnv):
    """A subclass, whose step might be another."""


def in_human_mode() -> gym.Env:
    env = ResourceGatheringEnv()
    env.render_mode = "human"
    return env


REFUSED: dict[str, tuple[type[DummyVecEnv], list[Callable[[], gym.Env]], str]] = {
    "subclass": (VelocityVecEnv, [OwnHopper] * 2, "OwnHopper is none of HalfCheetahVelocityEnv"),
    "wrapper": (VelocityVecEnv, [lambda: RecordEpisodeStatistics(gym.make(HOPPER))], "wrapper RecordEpisodeStatistics wants"),
    "two limits": (VelocityVecEnv, [lambda: TimeLimit(gym.make(HOPPER), 5)], "TimeLimit wants"),
    "limit of monitor": (VelocityVecEnv, [lambda: TimeLimit(Monitor(HopperVelocityEnv()), 5)], "wrapper Monitor wants"),
    "vector reward": (
        ResourceGatheringVecEnv,
        [lambda: VectorReward(ResourceGatheringEnv(), lambda *_: np.zeros(25), n_agents=25)],
        "wrapper VectorReward wants",
    ),
    "robots": (
        VelocityVecEnv,
        [HopperVelocityEnv, lambda: gym.make("rmdp/AntVelocity-v0")],
        r"different robots, \['AntVelocityEnv', 'HopperVelocityEnv'\]",
    ),
    "population": (VelocityVecEnv, [HopperVelocityEnv, lambda: HopperVelocityEnv(n_agents=3)], r"differ in agents \('velo"),
    "settings": (
        VelocityVecEnv,
        [HopperVelocityEnv, lambda: HopperVelocityEnv(frame_skip=2)],
        r"differ in dt \(0.008 and 0.004\), frame_skip \(4 and 2\)",
    ),
    "sizes": (
        ResourceGatheringVecEnv,
        [ResourceGatheringEnv, lambda: ResourceGatheringEnv((2, 2), (0, 0))],
        r"different numbers of agents, \[4, 25\]",
    ),
    "human": (ResourceGatheringVecEnv, [in_human_mode], 'render_mode="human"'),
    "another": (ResourceGatheringVecEnv, [TwoGroups], "TwoGroups is none of ResourceGatheringEnv"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    vec_env_class, fns, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as error:
        vec_env_class(fns)
    assert str(error.value).startswith(vec_env_class.__name__) and str(error.value).endswith("use SB3's DummyVecEnv")
    assert type(fastest_vec_env(fns, verbose=1)) is DummyVecEnv
    assert f"DummyVecEnv: {len(fns)} environments, stepped one after the other" in capsys.readouterr().out


def test_what_is_chosen_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert type(make_represented_vec_env(GRID, 3)) is ResourceGatheringVecEnv
    assert capsys.readouterr().out == ""
    env = make_represented_vec_env(HOPPER, 2, env_kwargs=dict(n_agents=7), verbose=1)
    assert type(env) is VelocityVecEnv and env.num_envs == 2 and env.get_attr("n_agents") == [7, 7]
    assert capsys.readouterr().out == "VelocityVecEnv: 2 environments, stepped together.\n"
    wrapped = RecordEpisodeStatistics(gym.make(HOPPER))
    env = make_represented_vec_env(wrapped, 2, verbose=1)
    assert type(env) is DummyVecEnv and env.env_is_wrapped(RecordEpisodeStatistics) == [True, True]
    assert capsys.readouterr().out == (
        "DummyVecEnv: 2 environments, stepped one after the other, since the wrapper RecordEpisodeStatistics wants to see "
        "every step.\n"
    )


def test_arguments_of_the_factory(tmp_path: Path) -> None:
    one = gym.make(GRID, shape=(2, 3), home=(0, 0))
    env = make_represented_vec_env(one, 5, n_envs=2, monitor_dir=str(tmp_path), env_kwargs=dict(home=(1, 1)))
    assert env.num_envs == 2 and env.get_attr("home") == [(1, 1)] * 2 and env.get_attr("shape") == [(2, 3)] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.monitor.csv", "1.monitor.csv"]
    assert all(env.unwrapped is not one.unwrapped for env in env.envs)  # type: ignore[attr-defined]
    env.close()
    first, second, third = (make_represented_vec_env(HOPPER, 2, seed=seed).reset() for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)  # type: ignore[arg-type]
    np.testing.assert_array_equal(first[1], third[0])  # type: ignore[index]
    assert not np.array_equal(first[0], third[0])  # type: ignore[index]
    assert type(make_represented_vec_env(GRID, 2, vec_env_cls=DummyVecEnv)) is DummyVecEnv
    processes = make_represented_vec_env(f"sb3_rmdp.envs:{GRID}", 2, vec_env_cls=SubprocVecEnv)
    assert type(processes) is SubprocVecEnv
    processes.close()
    for wrong in (ResourceGatheringEnv(), env):
        with pytest.raises(ValueError, match="cannot be made again: give a gymnasium id"):
            make_represented_vec_env(wrong, 2)  # type: ignore[arg-type]
    for kwargs in (dict(k=0), dict(k=1, n_envs=0)):
        with pytest.raises(ValueError, match="=0 does not do"):
            make_represented_vec_env(GRID, **kwargs)


def test_models_get_it_by_themselves() -> None:
    for env, vec_env_class in ((GRID, ResourceGatheringVecEnv), (gym.make(HOPPER, n_agents=9), VelocityVecEnv)):
        model = RepresentedPPO("MlpPolicy", env, k=2, device="cpu")
        assert type(model.get_env()) is vec_env_class and model.n_envs == 2
    alone = ResourceGatheringEnv()
    assert represented_vec_env(alone, 2) is alone


def test_the_same_environment_twice() -> None:
    env = gym.make(GRID)
    with pytest.raises(ValueError, match="returned the same instance"):
        fastest_vec_env([lambda: env] * 2)
