"""Robots that are stepped in several threads."""

from __future__ import annotations

import os
import threading
import time
import traceback
from typing import Any

import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_rmdp.envs import HopperVelocityEnv
from sb3_rmdp.vec_env import VelocityVecEnv, velocity
from tests.vec_env.copies import HOPPER, ROBOTS, assert_same, make, random_actions


@pytest.mark.parametrize(("n_envs", "n_threads"), [(1, 1), (9, 1), (11, 2), (16, 3)])
def test_threads_by_default(n_envs: int, n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for 5 environments, but not more than there are cores."""
    for cores in (2, 8):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        env = VelocityVecEnv([HopperVelocityEnv] * n_envs)
        assert env.n_threads == min(n_threads, cores)
        env.close()


@pytest.mark.parametrize("n_threads", [2, 3, 9])
def test_threads(n_threads: int) -> None:
    kwargs, n_steps = ROBOTS[HOPPER]
    # Threads of what earlier tests have left behind may still end
    before = set(threading.enumerate())
    ours = make(HOPPER, 7, VelocityVecEnv, n_threads=n_threads, **kwargs)
    assert ours.get_attr("n_agents") == [100] * 7 and ours.n_threads == min(n_threads, 7)  # type: ignore[attr-defined]
    dummy = make(HOPPER, 7, DummyVecEnv, **kwargs)
    assert len(set(threading.enumerate()) - before) == ours.n_threads - 1  # type: ignore[attr-defined]
    assert_same(ours, dummy, random_actions(dummy, n_steps))
    ours.close()
    deadline = time.monotonic() + 10.0
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before


@pytest.mark.parametrize("broken", [0, 4])
def test_what_a_thread_raises_stops_the_step(broken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    env = make(HOPPER, 5, VelocityVecEnv, n_threads=2)
    env.reset()
    for action in random_actions(env, 3):
        env.step(action)
    victim, simulate, raised_in = env.envs[broken].unwrapped.data, velocity.simulate, []  # type: ignore[attr-defined]

    stepped: list[Any] = []

    def breaking(model: Any, data: Any, *args: Any) -> None:
        if data is victim:
            raised_in.append(threading.current_thread())
            raise ArithmeticError("the robot came apart")
        time.sleep(0.05)  # whoever does not wait for all threads leaves one behind
        simulate(model, data, *args)
        stepped.append(data)

    monkeypatch.setattr(velocity, "simulate", breaking)
    with pytest.raises(ArithmeticError, match="came apart") as error:
        env.step(action)
    assert len(stepped) == (2 if broken == 0 else 4)  # all that were not after the victim in its own thread
    assert (raised_in[0] is threading.main_thread()) == (broken == 0)
    assert "breaking" in [frame.name for frame in traceback.extract_tb(error.tb)]
    monkeypatch.undo()
    env.reset()
    env.step(action)
    env.close()


def test_bad_number_of_threads() -> None:
    with pytest.raises(ValueError, match="n_threads=0 does not do"):
        VelocityVecEnv([HopperVelocityEnv], n_threads=0)
