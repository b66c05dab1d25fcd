"""Who evaluates in a training does not change it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, EveryNTimesteps

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.approval.report import write_report
from sb3_rmdp.common.callbacks import KeepBestCallback, WelfareEvalCallback
from sb3_rmdp.common.random_numbers import apart_from_training, other_random_numbers, training
from sb3_rmdp.service import record_episodes
from tests.probes import Probe, vectorized


class Noisy(Probe):
    """Three steps; draws from the generators that all of a process draws from."""

    n_agents = 4
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    horizon = 3

    def observe(self) -> np.ndarray:
        return np.array([np.random.uniform(-1, 1), random.uniform(-1, 1)], dtype=np.float32)

    def rewards(self, action: np.ndarray) -> np.ndarray:
        return np.arange(4) * float(action[0]) + float(th.rand(()))


class Asks(BaseCallback):
    """Somebody's own callback."""

    def __init__(self, asks: Any):
        super().__init__()
        self.asks, self.found = asks, []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.found.append(self.asks(self.model))


def report(folder: Path, model: RepresentedPPO) -> None:
    if model.num_timesteps == 32:
        write_report(
            model, vectorized(Noisy, 2), folder / "r", n_eval_episodes=2, seeds=1, deterministic=False, stress=False, frames=0
        )


CALLBACKS: dict[str, Any] = {
    "welfare": lambda folder: WelfareEvalCallback(vectorized(Noisy, 3), n_eval_episodes=2, eval_freq=5, deterministic=False),
    "sb3": lambda folder: EvalCallback(vectorized(Noisy, 3), n_eval_episodes=2, eval_freq=5, deterministic=False, verbose=0),
    "sb3, below": lambda folder: EveryNTimesteps(20, EvalCallback(vectorized(Noisy, 2), eval_freq=1, deterministic=False)),
    "evaluate": lambda folder: Asks(lambda model: evaluate_welfare(model, vectorized(Noisy, 1), 2, deterministic=False)),
    "record": lambda folder: Asks(lambda model: record_episodes(model, vectorized(Noisy, 2), 2, deterministic=False)),
    "report": lambda folder: Asks(lambda model: report(folder, model)),
    "keep best": lambda folder: KeepBestCallback(100),
}


def trained(callback: BaseCallback | None) -> RepresentedPPO:
    model = RepresentedPPO("MlpPolicy", vectorized(Noisy, 2), k=2, n_steps=16, batch_size=8, n_epochs=1, device="cpu", seed=0)
    # Twice: callbacks may be used again
    for _ in range(2):
        model.learn(3 * 32, callback=callback, reset_num_timesteps=False)
    return model


@pytest.mark.filterwarnings("ignore:Training and eval env are not of the same type", "ignore:Evaluation environment is not")
@pytest.mark.parametrize("name", CALLBACKS)
def test_a_training_is_the_same_with_evaluations_and_without(name: str, tmp_path: Path) -> None:
    plain, watched = trained(None), trained(CALLBACKS[name](tmp_path))
    for (parameter, expected), found in zip(
        plain.policy.state_dict().items(), watched.policy.state_dict().values(), strict=True
    ):
        assert th.equal(expected, found), parameter
    assert th.equal(plain.assignment.q_table, watched.assignment.q_table)


def test_evaluations_in_a_training_are_not_alike() -> None:
    asks = Asks(lambda model: evaluate_welfare(model, vectorized(Noisy, 1), 2, deterministic=False).social_welfare)
    trained(asks)
    assert len(set(asks.found)) == len(asks.found) == 6


def test_outside_of_trainings_samples_differ_from_call_to_call() -> None:
    model, env = trained(None), vectorized(Noisy, 1)
    first, second = (evaluate_welfare(model, env, 2, deterministic=False).social_welfare for _ in range(2))
    assert first != second


def test_other_random_numbers_are_neither_those_before_nor_those_after() -> None:
    th.manual_seed(3)
    expected = th.rand(4)
    th.manual_seed(3)
    with other_random_numbers():
        inside = th.rand(4)
    assert th.equal(th.rand(4), expected) and not th.equal(inside, expected)
    draw = apart_from_training(lambda: th.rand(4))
    th.manual_seed(3)
    with pytest.raises(RuntimeError), training():
        draw()
        assert th.equal(th.rand(4), expected)
        raise RuntimeError
    th.manual_seed(3)
    assert th.equal(draw(), expected)  # the training is over
