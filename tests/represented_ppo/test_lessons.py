"""Lessons within a training: whatever computes the gradients, and without lessons nothing at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.utils import set_random_seed

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.assignment import HardAssignment
from sb3_rmdp.common.imitation import Imitation
from sb3_rmdp.common.trajectories import Lesson, Trajectory
from sb3_rmdp.represented_ppo.manual_gradients import ManualGradients
from tests.probes import KnownAssignment, vectorized
from tests.represented_ppo.test_manual_gradients import filled_model

SMALL: dict[str, Any] = dict(n_steps=16, batch_size=8, n_epochs=2, seed=0, device="cpu")


class NoImitation:
    """Takes no lessons."""

    def __init__(self, *_: Any) -> None: ...

    def after_minibatch(self) -> None: ...

    def finish(self) -> None: ...


@pytest.mark.parametrize("assignment", ["em", "end_to_end"])
def test_a_training_without_lessons_is_the_same_without_imitation(assignment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    for imitation in (Imitation, NoImitation):
        monkeypatch.setattr("sb3_rmdp.represented_ppo.represented_ppo.Imitation", imitation)
        model = RepresentedPPO("MlpPolicy", vectorized(KnownAssignment, 3), k=3, assignment=assignment, **SMALL)
        states.append(model.learn(8 * 48).policy.state_dict())
    assert all(th.equal(states[0][name], states[1][name]) for name in states[0])


class Teaching(HardAssignment):
    """Representative 0 learns from the last episode of representative 1; representative 1 begins anew with one of 0's."""

    needs_trajectories = True

    def __init__(self, n_agents: int, k: int, seed: int | None = None):
        super().__init__(n_agents, k, seed)
        self.actors: list[int] = []
        self.last: dict[int, Trajectory] = {}

    def record_episodes(self, representatives: np.ndarray, returns: np.ndarray) -> None:
        self.actors.extend(representatives.tolist())

    def record_trajectories(self, trajectories: list[Trajectory], returns: list[np.ndarray]) -> None:
        self.last.update(zip(self.actors, trajectories, strict=True))
        self.actors = []

    def lessons(self) -> list[Lesson]:
        return [Lesson(0, self.last[1], False), Lesson(1, self.last[0], True)]


@pytest.mark.parametrize("case", ["gaussian", "categorical", "relu, deep", "dictionary of vectors", "discrete observations"])
def test_the_same_lessons_beside_gradients_by_hand_and_by_autograd(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients by hand have all parameters lie in one tensor while an update lasts; autograd's are on their own."""
    fits, ours = ManualGradients.fits, []
    for by_hand, imitation in ((True, Imitation), (False, Imitation), (True, NoImitation)):
        monkeypatch.setattr(ManualGradients, "fits", staticmethod(fits if by_hand else lambda model: False))
        monkeypatch.setattr("sb3_rmdp.represented_ppo.represented_ppo.Imitation", imitation)
        model = filled_model(case, n_epochs=2, assignment=Teaching)
        set_random_seed(2)
        model.train()
        ours.append(model.get_parameters())
        if by_hand:
            assert all(parameter.grad is None for parameter in model.policy.parameters())
            pointers = {parameter.untyped_storage().data_ptr() for parameter in model.policy.parameters()}
            assert len(pointers) == len(list(model.policy.parameters()))
    found, expected, without = (one["policy"] for one in ours)
    for name, value in found.items():
        th.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5)
    for name in ("action_net.weight", "action_net.bias"):
        assert not th.allclose(found[name][0], without[name][0], rtol=1e-3, atol=1e-5)
    states = [one["policy.optimizer"]["state"] for one in ours[:2]]
    for index, state in states[0].items():
        assert state["step"] == states[1][index]["step"]
        th.testing.assert_close(state["exp_avg"], states[1][index]["exp_avg"], rtol=1e-3, atol=1e-5)


def steps(count: int) -> Trajectory:
    return Trajectory(np.zeros((count, 3), np.float32), np.zeros((count, 1), np.float32), np.zeros((0, 3), np.float32))


@pytest.mark.parametrize(
    "lessons, message",
    [
        ([Lesson(2, steps(4), False)], "lesson for representative 2: they are 0 to 1"),
        ([Lesson(-1, steps(4), False)], "lesson for representative -1: they are 0 to 1"),
        ([Lesson(1, steps(4), False), Lesson(1, steps(5), True)], "two lessons for representative 1"),
        ([Lesson(0, steps(0), True)], "representative 0 has an episode without steps"),
        ([Lesson(0, steps(4), False, steps(0))], "representative 0 has detours without steps"),
    ],
)
def test_lessons_that_cannot_be_learned(lessons: list[Lesson], message: str) -> None:
    class Wrong(HardAssignment):
        def lessons(self) -> list[Lesson]:
            return lessons

    model = RepresentedPPO("MlpPolicy", vectorized(KnownAssignment, 2), k=2, assignment=Wrong, **SMALL)
    with pytest.raises(ValueError, match=message):
        model.learn(64)
    # The model is whole: an update has its parameters in one tensor only while it lasts
    pointers = {parameter.untyped_storage().data_ptr() for parameter in model.policy.parameters()}
    assert len(pointers) == len(list(model.policy.parameters()))
