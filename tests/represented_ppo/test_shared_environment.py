"""Whoever else moves the environment of a training cuts its episodes off: two of them never become one."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, EveryNTimesteps
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.approval import write_report
from sb3_rmdp.common.callbacks import WelfareEvalCallback
from sb3_rmdp.service import record_episodes
from sb3_rmdp.vec_env import make_represented_vec_env
from sb3_rmdp.vec_env.watch import share_environments

GRID = "rmdp/ResourceGathering-v0"


class Room(gym.Env):
    """Every episode has ten steps, and pays everybody 10."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (1,), np.float32), gym.spaces.Discrete(2)
    n_agents = 2
    horizon = 10

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.t += 1
        return np.zeros(1, np.float32), 1.0, False, self.t == self.horizon, {"reward_vector": np.ones(2, np.float32)}


def make_model(env: Any, **kwargs: Any) -> RepresentedPPO:
    small = dict(k=2, assignment="em", assignment_kwargs=dict(mixing=1.0), n_steps=25, batch_size=25, device="cpu", seed=0)
    return RepresentedPPO("MlpPolicy", env, **{**small, **kwargs})


def reset(model: RepresentedPPO, env: Any) -> None:
    env.reset()


def some_steps(model: RepresentedPPO, env: Any) -> None:
    for _ in range(3):
        env.step(np.zeros(env.num_envs, dtype=np.int64) if isinstance(env, VecEnv) else 0)


def another_training(model: RepresentedPPO, env: Any) -> None:
    make_model(env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env])).learn(50)


#: What people do with an environment between two trainings
OTHERS: dict[str, Callable[[RepresentedPPO, Any], Any]] = {
    "evaluate_welfare": lambda model, env: evaluate_welfare(model, env, 1),
    "record_episodes": lambda model, env: record_episodes(model, env, 2),
    "evaluate_policy": lambda model, env: evaluate_policy(model, env, 2, warn=False),
    "evaluate_policy of a representative": lambda model, env: evaluate_policy(model.representative(0), env, 2, warn=False),
    "reset": reset,
    "steps": some_steps,
    "another training": another_training,
}
#: What they have in their hands: the vec env of the model, the innermost one, or one environment of it
HANDLES: dict[str, Callable[[DummyVecEnv], Any]] = {
    "model's vec env": lambda venv: venv,
    "one environment": lambda venv: venv.envs[0],
    "the environment itself": lambda venv: venv.envs[0].unwrapped,
    "another vec env": lambda venv: DummyVecEnv([lambda one=one: one.unwrapped for one in venv.envs]),
}


@pytest.mark.parametrize("handle", HANDLES)
@pytest.mark.parametrize("other", OTHERS)
def test_episodes_that_somebody_else_cuts_off_are_not_joined_to_the_next(other: str, handle: str) -> None:
    model = make_model(DummyVecEnv([lambda: Monitor(Room()), lambda: Monitor(Room())])).learn(50)
    OTHERS[other](model, HANDLES[handle](model.get_env()))  # type: ignore[arg-type]
    model.learn(50, reset_num_timesteps=False)
    assert model.assignment.q.tolist() == [[10.0, 10.0], [10.0, 10.0]]
    assert all(info["r"] == 10.0 for info in model.ep_info_buffer or [])


class TellingRoom(Room):
    def get_state(self) -> dict[str, Any]:
        return {"t": self.t}

    def set_state(self, state: dict[str, Any]) -> None:
        self.t = state["t"]


@pytest.mark.parametrize("other", OTHERS)
def test_nor_are_they_when_the_model_is_saved_and_loaded_in_between(other: str, tmp_path: Path) -> None:
    model = make_model(DummyVecEnv([TellingRoom, TellingRoom])).learn(50)
    OTHERS[other](model, model.get_env())
    model.save(tmp_path / "model.zip")
    loaded = RepresentedPPO.load(tmp_path / "model.zip", env=DummyVecEnv([TellingRoom, TellingRoom]), device="cpu")
    loaded.learn(50, reset_num_timesteps=False)
    assert loaded.assignment.q.tolist() == [[10.0, 10.0], [10.0, 10.0]]


def test_a_single_environment_is_watched_as_well() -> None:
    env = Room()
    model = make_model(env).learn(25)
    evaluate_policy(model, env, 1, warn=False)
    model.learn(75, reset_num_timesteps=False)
    assert model.assignment.q.tolist() == [[10.0, 10.0], [10.0, 10.0]]


def test_a_report_in_the_environment_of_the_training_begins_new_episodes(tmp_path: Path) -> None:
    model = make_model(DummyVecEnv([Room, Room])).learn(50)
    write_report(model, model.get_env(), tmp_path / "report", 1, seeds=1, stress=False, frames=0)  # type: ignore[arg-type]
    model.learn(50, reset_num_timesteps=False)
    assert model.assignment.q.tolist() == [[10.0, 10.0], [10.0, 10.0]]


WATCHED: list[Callable[[], VecEnv]] = [
    lambda: make_represented_vec_env(GRID, 2),
    lambda: VecNormalize(DummyVecEnv([Room]), norm_reward=False),
]


@pytest.mark.parametrize("make", WATCHED)
def test_a_training_that_nobody_disturbs_goes_on_where_it_was(make: Callable[[], VecEnv]) -> None:
    model = make_model(make()).learn(50)
    begun = model._last_obs
    tracker = model._return_tracker
    model.learn(50, reset_num_timesteps=False)
    assert model._return_tracker is tracker and begun is not None


@pytest.mark.parametrize("other", OTHERS)
def test_a_callback_that_moves_the_environment_is_refused(other: str) -> None:
    class Meddling(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls == 7:
                OTHERS[other](self.model, self.training_env)  # type: ignore[arg-type]
            return True

    model = make_model(DummyVecEnv([lambda: Monitor(Room()), lambda: Monitor(Room())]))
    with pytest.raises(ValueError, match="somebody has reset or stepped the environment of the training"):
        model.learn(50, callback=Meddling())
    model.learn(50, reset_num_timesteps=False)
    assert model.assignment.q.tolist() == [[10.0, 10.0], [10.0, 10.0]]


@pytest.mark.parametrize("where", ["_on_training_start", "_on_rollout_start", "_on_rollout_end"])
def test_a_callback_must_not_move_it_between_rollouts_either(where: str) -> None:
    class Meddling(BaseCallback):
        def _on_step(self) -> bool:
            return True

    def move(callback: BaseCallback) -> None:
        evaluate_policy(callback.model.representative(0), callback.training_env, 2, warn=False)  # type: ignore[attr-defined]

    setattr(Meddling, where, move)
    model = make_model(DummyVecEnv([lambda: Monitor(Room()), lambda: Monitor(Room())]))
    with pytest.raises(ValueError, match="somebody has reset or stepped the environment of the training"):
        model.learn(100, callback=Meddling())


@pytest.mark.parametrize("wrap", [lambda env: env, Monitor, lambda env: DummyVecEnv([lambda: Monitor(env)])])
def test_evaluations_in_the_environment_of_the_training_are_refused_before_any_time_is_spent(wrap: Any) -> None:
    env = Room()
    model = make_model(env)
    for callback in (
        WelfareEvalCallback(wrap(env), eval_freq=7, verbose=0),
        EvalCallback(wrap(env), eval_freq=7, verbose=0),
        [EveryNTimesteps(10, EvalCallback(wrap(env), eval_freq=7, verbose=0))],
    ):
        with pytest.raises(ValueError, match=r"EvalCallback evaluates in the environment of the training.* of its own"):
            model.learn(500, callback=callback)
        assert model.num_timesteps == 0
    model.learn(50, callback=WelfareEvalCallback(Room(), eval_freq=20, n_eval_episodes=1, verbose=0))
    assert model.assignment.q[0].tolist() == [10.0, 10.0]


def test_a_step_that_was_interrupted_is_the_end_of_its_episode() -> None:
    class Interrupted(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls == 7:
                raise KeyboardInterrupt
            return True

    model = make_model(DummyVecEnv([Room, Room])).learn(50)
    with pytest.raises(KeyboardInterrupt):
        model.learn(50, callback=Interrupted(), reset_num_timesteps=False)
    model.learn(100, reset_num_timesteps=False)
    assert model.assignment.q.tolist() == [[10.0, 10.0], [10.0, 10.0]]


def test_worker_processes_are_watched_through_their_vec_env() -> None:
    model = make_model(SubprocVecEnv([Room, Room], start_method="fork")).learn(50)
    venv = model.get_env()
    assert venv is not None
    for meddle in (lambda: evaluate_welfare(model, venv, 1), lambda: venv.env_method("step", 0)):
        meddle()
        model.learn(50, reset_num_timesteps=False)
        assert model.assignment.q.tolist() == [[10.0, 10.0], [10.0, 10.0]]
    tracker = model._return_tracker
    venv.env_method("get_wrapper_attr", "n_agents")
    model.learn(50, reset_num_timesteps=False)
    assert model._return_tracker is tracker
    venv.close()


def test_copies_and_pickles_of_a_watched_environment_move_alone() -> None:
    model = make_model(DummyVecEnv([Room, Room])).learn(50)
    room = model.get_env().envs[0]  # type: ignore[union-attr]
    time = room.t
    for other in (copy.deepcopy(room), pickle.loads(pickle.dumps(room))):
        other.reset()
        other.step(0)
        assert (other.t, room.t) == (1, time) and not share_environments(other, room)
    grids = make_represented_vec_env(GRID, 2)
    model = make_model(grids).learn(50)
    tracker = model._return_tracker
    other = copy.deepcopy(grids)
    other.reset()
    other.step(np.zeros(2, dtype=np.int64))
    model.learn(50, reset_num_timesteps=False)
    assert model._return_tracker is tracker
