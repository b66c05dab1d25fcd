"""One run of a sweep: as if it had been trained and evaluated by itself."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import LinearSchedule

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.callbacks import KeepBestCallback

pytest.importorskip("yaml")

from sb3_rmdp.sweep.config import Run
from sb3_rmdp.sweep.running import train_and_evaluate, versions
from sb3_rmdp.vec_env import make_represented_vec_env
from tests.sweep.commands import EVENTFUL, GRID, SMALL

HOPPER = "rmdp/HopperVelocity-v0"


def hyperparams(**more: Any) -> dict[str, Any]:
    return {"policy": "MlpPolicy", "assignment": "em", **SMALL, **more}


class StopAfter(BaseCallback):
    """Ends a training after a number of timesteps and the update that follows, and remembers the random numbers there."""

    def __init__(self, timesteps: int):
        super().__init__()
        self.timesteps = timesteps
        self.random_state: tuple[th.Tensor, Any] | None = None

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps >= self.timesteps:
            self.random_state = th.get_rng_state(), np.random.get_state()

    def _on_step(self) -> bool:
        return self.random_state is None


@pytest.mark.parametrize(
    ("env_id", "kwargs", "assignment", "more", "n_envs", "in_training"),
    [
        (GRID, {"max_episode_steps": 20}, "em", {}, 3, {}),
        (HOPPER, {"n_agents": 4, "population_seed": 1}, "end_to_end", {}, 3, {}),
        (GRID, {}, "episodes", {"envs_per_policy": 2}, 6, {}),
        (HOPPER, {"n_agents": 4, "population_seed": 1}, "em", {"max_episode_steps": 9}, 3, {"max_episode_steps": 9}),
    ],
)
def test_a_run_is_a_plain_training_and_its_evaluation(
    env_id: str,
    kwargs: dict[str, Any],
    assignment: str,
    more: dict[str, int],
    n_envs: int,
    in_training: dict[str, int],
    tmp_path: Path,
) -> None:
    written = dict(learning_rate="lin_5e-4_1e-4", ent_coef="lin_5e-2_1e-3", assignment=assignment, gamma=1.0, **more)
    outcome = train_and_evaluate(Run(env_id, kwargs, 3, "own", hyperparams(**written), 5, (64, 160), 4), with_model=True)
    for transitions, row in zip((64, 160), outcome.rows, strict=True):
        plain: dict[str, Any] = dict(
            learning_rate=LinearSchedule(5e-4, 1e-4, 1.0), ent_coef=LinearSchedule(5e-2, 1e-3, 1.0), gamma=1.0, **SMALL
        )
        env = make_represented_vec_env(env_id, 3, n_envs=n_envs, env_kwargs={**kwargs, **in_training})
        model = RepresentedPPO("MlpPolicy", env, k=3, assignment=assignment, seed=5, device="cpu", **plain)
        if transitions == 160:
            model.learn(480)
        else:
            # The beginning of the same training: schedules go to the end of the whole
            stopped = StopAfter(transitions * 3)
            model.learn(480, callback=stopped)
            assert model.num_timesteps == transitions * 3 + n_envs  # the first step of the rollout after it
            assert stopped.random_state is not None
            th.set_rng_state(stopped.random_state[0])
            np.random.set_state(stopped.random_state[1])
        for name, deterministic in (("stochastic", False), ("deterministic", True)):
            evaluation_env = gym.make(env_id, **kwargs)
            evaluation_env.reset(seed=10_000)
            result = evaluate_welfare(model, evaluation_env, 4, deterministic)
            assert row[name] == result.social_welfare
            assert row[f"{name}_error"] == result.standard_error
            assert row[f"{name}_greedy"] == result.greedy_social_welfare
        assert row["stochastic"] > 0.0  # or else nothing is compared
        assert row["bound"] == result.optimum is not None
        assert row["representatives"] == " ".join(map(str, result.assignment))
        found = (row["transitions_per_policy"], row["k"], row["n_agents"], row["seed"])
        assert found == (transitions, 3, model.n_agents, 5)
        assert json.loads(row["versions"]) == versions() and versions()["torch"] == th.__version__
    # Returns on a grid are too few to tell models apart
    (tmp_path / "model.zip").write_bytes(outcome.model or b"")
    saved = RepresentedPPO.load(tmp_path / "model.zip", device="cpu")
    th.testing.assert_close(dict(saved.policy.state_dict()), dict(model.policy.state_dict()), rtol=0, atol=0)


def test_results_do_not_depend_on_other_checkpoints_or_who_follows() -> None:
    told: list[float] = []

    def last(checkpoints: tuple[int, ...]) -> dict[str, object]:
        tell = told.append if len(checkpoints) == 1 else None
        row = train_and_evaluate(Run(GRID, {}, 2, "em", hyperparams(), 1, checkpoints, 3), tell=tell).rows[-1]
        return {name: value for name, value in row.items() if name not in ("run", "seconds")}

    few, many = last((160,)), last((32, 64, 96, 160))
    assert few == many and few["stochastic"] > 0.0
    assert told == [0.0, 0.2, 0.4, 0.6, 0.8]


@pytest.mark.parametrize("keep_best", [0, 2])
def test_the_beginning_of_a_longer_training(keep_best: int) -> None:
    """Schedules and assignment are those of the whole, and no rollout is collected when the last checkpoint is measured."""
    told: list[float] = []
    more = dict(assignment="episodes", ent_coef="lin_5e-2_0", keep_best=keep_best)
    whole = Run(GRID, {}, 2, "own", hyperparams(**more), 1, (64, 96, 160), 3)
    beginning = Run(GRID, {}, 2, "own", hyperparams(planned_transitions=160, **more), 1, (64, 90), 3)
    rows = train_and_evaluate(beginning, tell=told.append).rows
    keys = ("stochastic", "deterministic", "representatives")
    assert [[row[key] for key in keys] for row in rows] == [
        [row[key] for key in keys] for row in train_and_evaluate(whole).rows[:2]
    ]
    assert [row["transitions_per_policy"] for row in rows] == [64, 90] and told == [0.0, 32 / 90, 64 / 90, 1.0]


def test_the_best_model_so_far_is_measured() -> None:
    """As the callback would leave it if the training ended there, and without a change to what comes after."""
    run = Run(GRID, {}, 2, "em", hyperparams(keep_best=2), 4, (64, 96, 128, 160), 3)
    rows = train_and_evaluate(run).rows
    best = []
    for transitions, row in zip(run.checkpoints, rows, strict=True):
        model = RepresentedPPO(env=make_represented_vec_env(GRID, 2), k=2, seed=4, device="cpu", **hyperparams())
        keep, stop = KeepBestCallback(2), StopAfter(transitions * 2)
        model.learn(320, callback=[keep, stop])
        if stop.random_state is not None:
            th.set_rng_state(stop.random_state[0])
        env = gym.make(GRID)
        env.reset(seed=10_000)
        result = evaluate_welfare(model, env, 3, False)
        assert row["stochastic"] == result.social_welfare
        assert row["representatives"] == " ".join(map(str, result.assignment))
        best.append(keep.best_timesteps)
    # Some model was worse than one before it, and some better
    assert 1 < len(set(best)) < len(best)


def test_checkpoints_between_two_updates_are_evaluated_after_the_second() -> None:
    run = Run(EVENTFUL, {"n_agents": 4}, 2, "em", hyperparams(), 0, (32, 33, 40, 64, 65), 5)
    outcome = train_and_evaluate(run)
    assert outcome.model is None
    assert [row["transitions_per_policy"] for row in outcome.rows] == [32, 33, 40, 64, 65]
    welfare = [row["stochastic"] for row in outcome.rows]
    assert welfare[1:4] == [welfare[1]] * 3 and len(set(welfare)) == 3
    seconds = [row["seconds"] for row in outcome.rows]
    assert seconds == sorted(seconds) and seconds[0] > 0.0
    assert {row["n_agents"] for row in outcome.rows} == {4} and {row["bound"] for row in outcome.rows} == {None}


def test_seconds_are_those_of_the_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        late = 0.0

        def perf_counter(self) -> float:
            return time.perf_counter() + self.late

    def slowly(*arguments: Any) -> Any:
        clock.late += 1000.0
        return evaluate_welfare(*arguments)

    clock = Clock()
    monkeypatch.setattr("sb3_rmdp.sweep.running.time", clock)
    monkeypatch.setattr("sb3_rmdp.sweep.running.evaluate_welfare", slowly)
    rows = train_and_evaluate(Run(GRID, {}, 1, "em", hyperparams(), 0, (32, 64), 1)).rows
    assert clock.late == 4000.0 and 0.0 < rows[0]["seconds"] < rows[1]["seconds"] < 1000.0
