"""Callbacks for represented algorithms, to be used like SB3's."""

from __future__ import annotations

from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback


class AnnealCallback(BaseCallback):
    """
    Moves an attribute of the model linearly from one value to another while it learns.

    For what has no schedule of its own in SB3, such as the entropy coefficient.

    :param attribute: name of a number among the model's attributes, e.g. "ent_coef"
    :param start: value at the beginning of the training
    :param end: value at its end
    :param verbose: as in SB3
    """

    def __init__(self, attribute: str, start: float, end: float, verbose: int = 0):
        super().__init__(verbose)
        self.attribute = attribute
        self.start = start
        self.end = end

    def _init_callback(self) -> None:
        value = getattr(self.model, self.attribute, None)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"attribute={self.attribute!r} of the model is {value!r}: only a number can be annealed")

    def _on_rollout_start(self) -> None:
        done = min(1.0, self.num_timesteps / self.model._total_timesteps)
        setattr(self.model, self.attribute, self.start + done * (self.end - self.start))
        self.logger.record(f"train/{self.attribute}", getattr(self.model, self.attribute))

    def _on_step(self) -> bool:
        return True


class WelfareProgressBarCallback(ProgressBarCallback):
    """
    SB3's progress bar with the social welfare of the last rollout beside it.

    :param n_lines: how often a line with the welfare is also printed, for logs
    """

    def __init__(self, n_lines: int = 10):
        super().__init__()
        self.n_lines = n_lines
        self._n_printed = 0

    def _on_rollout_end(self) -> None:
        welfare = self.logger.name_to_value.get("rollout/social_welfare")
        if welfare is None:
            return
        self.pbar.set_description(f"social welfare {welfare:.2f}")
        total = self.locals["total_timesteps"]
        if self.num_timesteps * self.n_lines >= total * (self._n_printed + 1):
            self._n_printed = int(self.num_timesteps * self.n_lines / total)
            print(f"{self.num_timesteps:>10} of {total} timesteps: social welfare {welfare:.2f}", flush=True)
