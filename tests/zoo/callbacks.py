"""Callbacks that configurations of tests name."""

from __future__ import annotations

import copy
import os
import signal
from typing import Any, ClassVar

from stable_baselines3.common.callbacks import BaseCallback


class Recorder(BaseCallback):
    """Remembers the state of the last training's assignment when it began, and its schedules at every update."""

    assignment: ClassVar[dict[str, Any]] = {}
    #: Learning rate and entropy coefficient of each update
    rates: ClassVar[dict[int, tuple[float, float]]] = {}

    def _on_training_start(self) -> None:
        state = self.model.assignment.state_dict()  # type: ignore[attr-defined]
        type(self).assignment = copy.deepcopy(dict(state))
        type(self).rates = {}

    def _record(self) -> None:
        logged = self.logger.name_to_value
        if "train/learning_rate" in logged:
            self.rates[logged["train/n_updates"]] = (logged["train/learning_rate"], logged["train/ent_coef"])

    def _on_rollout_start(self) -> None:
        self._record()

    def _on_training_end(self) -> None:
        self._record()

    def _on_step(self) -> bool:
        return True


class Interrupt(BaseCallback):
    """
    Ctrl-C, at a step.

    :param at: number of the step
    """

    def __init__(self, at: int):
        super().__init__()
        self.at = at

    def _on_step(self) -> bool:
        if self.n_calls == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        return True


class Fail(BaseCallback):
    """
    An error in the midst of a training, at a step.

    :param at: number of the step
    :param error: name of a built-in exception
    """

    def __init__(self, at: int, error: str = "RuntimeError"):
        super().__init__()
        self.at = at
        self.error = {"RuntimeError": RuntimeError, "ValueError": ValueError}[error]

    def _on_step(self) -> bool:
        if self.n_calls == self.at:
            raise self.error("the disk is full")
        return True
