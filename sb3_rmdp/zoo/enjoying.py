"""Whole cycles of representatives in RL Zoo's ``enjoy``, which stops after a number of steps."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm


def enjoyable(
    algorithm: type[RepresentedOnPolicyAlgorithm], n_timesteps: int, progress: bool
) -> type[RepresentedOnPolicyAlgorithm]:
    """
    A model that ends ``enjoy`` when it has acted for a number of steps and for whole cycles of its representatives, k episodes
    or a multiple of that: only then is the mean reward of the episodes social welfare.

    It does so by a ``KeyboardInterrupt``, which ``enjoy`` takes as the wish to see its report.

    :param algorithm: class of the model
    :param n_timesteps: steps at least
    :param progress: show a bar
    :return: class to load the model with
    """

    class Enjoyable(algorithm):  # type: ignore[misc,valid-type]
        _bar: Any = None
        _n_steps = 0
        _n_episodes = 0

        def predict(self, observation: Any, state: Any = None, episode_start: Any = None, **kwargs: Any) -> Any:
            if self._bar is None:
                self._bar = tqdm(total=n_timesteps, unit="step", disable=not progress)
            elif episode_start is not None:
                self._n_episodes += int(episode_start[0])
            cycles, rest = divmod(self._n_episodes, self.k)
            if self._n_steps >= n_timesteps and cycles > 0 and rest == 0:
                self._bar.close()
                print(f"Episodes of each of the {self.k} representatives: {cycles}. The mean reward is social welfare.")
                raise KeyboardInterrupt
            self._n_steps += 1
            self._bar.total = max(n_timesteps, self._n_steps)
            self._bar.update()
            return super().predict(observation, state, episode_start, **kwargs)

    Enjoyable.__name__ = algorithm.__name__
    return Enjoyable


def split_command_line(words: Sequence[str]) -> tuple[list[str], int, bool]:
    """
    :param words: command line of ``enjoy``
    :return: the same without an end, or as it is if there are several environments, of which ``enjoy`` reports nothing;
        number of steps; whether to show a bar
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-n", "--n-timesteps", type=int, default=1000)
    parser.add_argument("--n-envs", type=int, default=1)
    parser.add_argument("-P", "--progress", action="store_true")
    known, rest = parser.parse_known_args(words)
    if known.n_envs != 1:
        return list(words), known.n_timesteps, False
    return [*rest, "-n", str(sys.maxsize)], known.n_timesteps, known.progress
