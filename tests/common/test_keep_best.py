"""The callback that leaves the model as it was at its best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.callbacks import KeepBestCallback
from tests.common.test_callbacks import known


def state(model: RepresentedPPO) -> tuple[th.Tensor, th.Tensor]:
    policy = th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()
    return policy, model.assignment.alpha.detach().clone()


class Welfares(BaseCallback):
    """Writes welfare of its own into the log, and takes down what the model was then; to be listed first."""

    def __init__(self, values: list[float | None], name: str = "rollout/social_welfare") -> None:
        super().__init__()
        self.values, self.name = values, name
        self.states: list[tuple[th.Tensor, th.Tensor]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        value = self.values[len(self.states)]
        self.logger.name_to_value.pop(self.name, None)
        if value is not None:
            self.logger.record(self.name, value)
        self.states.append(state(self.model))  # type: ignore[arg-type]


def train(values: list[float | None], window: int, name: str = "rollout/social_welfare", **kwargs: Any) -> Any:
    model, welfares, keep = known(**kwargs), Welfares(values, name), KeepBestCallback(window)
    model.learn(len(values) * 48, callback=[welfares, keep])
    (at,) = [i for i, seen in enumerate(welfares.states) if all(map(th.equal, seen, state(model)))] or [None]
    return model, keep, at


@pytest.mark.parametrize("assignment", ["episodes", "em", "end_to_end"])
def test_policies_and_assignment_are_those_of_the_best_rollouts(assignment: str) -> None:
    # The single best rollout is the fifth, the best two in a row end with the third
    _, keep, at = train([1.0, 6.0, 6.0, 0.0, 9.0, 2.0, 5.0], window=2, assignment=assignment)
    assert at == 2 and keep.best_mean_welfare == 6.0 and keep.best_timesteps == 3 * 48
    _, _, at = train([1.0, 6.0, 6.0, 0.0, 9.0, 2.0, 5.0], window=1, assignment=assignment)
    assert at == 4


def test_the_end_if_nothing_is_known() -> None:
    """Fewer rollouts than are averaged, or no episode that was finished: the last update counts, as ever."""
    plain = known()
    plain.learn(3 * 48)
    for values in ([1.0, 5.0, 2.0], [None, None, 3.0]):
        model, keep, at = train(values, window=4 if values[0] else 2)  # type: ignore[arg-type]
        assert at is None and keep.best_timesteps == 0
        assert all(map(th.equal, state(model), state(plain)))


def test_rollouts_without_finished_episodes_are_left_out() -> None:
    _, keep, at = train([1.0, 6.0, None, 6.0, 2.0], window=2)
    assert at == 3 and keep.best_mean_welfare == 6.0


def test_another_welfare_is_judged_by_its_own_value() -> None:
    _, keep, at = train([2.0, 7.0, 1.0], window=1, name="welfare/value", welfare="nash")
    assert at == 1 and keep.best_mean_welfare == 7.0


def test_a_training_that_goes_on_starts_anew(capsys: pytest.CaptureFixture[str]) -> None:
    model, keep, _ = train([9.0, 1.0], window=1)
    kept = state(model)
    again = Welfares([3.0, 2.0])
    keep.verbose = 1
    model.learn(2 * 48, callback=[again, keep], reset_num_timesteps=False)
    assert keep.best_mean_welfare == 3.0 and "a welfare of 3.00 after 144 timesteps (biased upwards" in capsys.readouterr().out
    # It went on from what was kept
    assert th.equal(again.states[0][0], kept[0]) and all(map(th.equal, state(model), again.states[0]))


def test_the_best_model_so_far_is_a_copy() -> None:
    class Look(BaseCallback):
        """After the third rollout."""

        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            if self.model.num_timesteps == 3 * 48:
                before = np.random.get_state()[1].tolist(), th.get_rng_state(), state(self.model)  # type: ignore[arg-type]
                self.found = keep.best_model()
                assert np.random.get_state()[1].tolist() == before[0] and th.equal(th.get_rng_state(), before[1])
                assert all(map(th.equal, state(self.model), before[2]))  # type: ignore[arg-type]

    model, welfares, keep, look = known(), Welfares([1.0, 6.0, 0.0, 9.0]), KeepBestCallback(1), Look()
    model.learn(4 * 48, callback=[welfares, keep, look])
    assert all(map(th.equal, state(look.found), welfares.states[1]))
    assert all(map(th.equal, state(model), welfares.states[3]))
    # Without it the training is the same
    plain = known()
    keep = KeepBestCallback(1)
    plain.learn(4 * 48, callback=[Welfares([1.0, 6.0, 0.0, 9.0]), keep])
    assert all(map(th.equal, state(model), state(plain)))


def test_no_window() -> None:
    with pytest.raises(ValueError, match="window=0: give an integer of at least 1"):
        KeepBestCallback(0)


def test_a_training_that_goes_on_in_another_program_knows_the_best_one(tmp_path: Path) -> None:
    values = [1.0, 9.0, 2.0, 5.0, 3.0]
    checkpoints, keep = CheckpointCallback(48 // known().n_envs, str(tmp_path)), KeepBestCallback(1)
    unbroken = known().learn(5 * 48, callback=[Welfares(list(values)), keep, checkpoints])
    (file,) = [path for path in tmp_path.glob("*.zip") if f"_{3 * 48}_" in path.name]

    model, again = RepresentedPPO.load(file, env=unbroken.get_env(), device="cpu"), KeepBestCallback(1)
    # The file was written within the third rollout, which is played again
    model.learn(5 * 48 - model.num_timesteps, callback=[Welfares(list(values[2:])), again], reset_num_timesteps=False)
    assert again.best_mean_welfare == keep.best_mean_welfare == 9.0 and again.best_timesteps == keep.best_timesteps == 2 * 48
    assert all(map(th.equal, state(model), state(unbroken)))
