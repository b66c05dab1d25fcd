"""
What stands in the way of an optimum: what "episodes" has found, what it aims at, and what its policies do.

    python -m benchmarks.found benchmarks/sweeps/figure2.yml --k 1 --algorithm episodes --seed 8

Trains one run of a sweep anew, as the sweep does, and writes what it saw to benchmarks/results/found-*.json, with a picture
beside it. With --draw it only draws the picture of a file anew. If the best episodes that there are fall short, exploration
has not found better ones; if only the aims do, they were badly chosen; if only the policies do, they have yet to learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from matplotlib.figure import Figure
from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.watching import command_line
from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.assignment import EpisodeAssignment
from sb3_rmdp.common.facility_location import exchange, greedy_choice, total
from sb3_rmdp.common.random_numbers import same_random_numbers_after
from sb3_rmdp.common.seeds import EVALUATION_SEED
from sb3_rmdp.plots.style import DARK, FAINT, palette
from sb3_rmdp.sweep.config import Run
from sb3_rmdp.sweep.running import close, new_model

#: Rollouts between two looks
EVERY = 8

#: Random sets from which a better choice among all episodes is looked for, beside the greedy one
RESTARTS = 50

#: What is seen, and how it is called in the picture
SERIES = {"found": "best episodes found", "aimed": "episodes aimed at", "likeliest": "policies, likeliest actions"}


def best_of(utilities: np.ndarray, k: int) -> float:
    """
    :param utilities: of agents under episodes, (n_episodes, n_agents)
    :param k: how many may be chosen
    :return: social welfare of the best k that are found, each agent with the best of them; 0 without episodes
    """
    if len(utilities) <= k:
        return float(utilities.max(axis=0, initial=0.0).mean())
    random = np.random.default_rng(0)
    starts = [greedy_choice(utilities, k)]
    starts += [random.choice(len(utilities), k, replace=False) for _ in range(RESTARTS)] if k > 1 else []
    return max(total(utilities, exchange(utilities, start)) for start in starts) / utilities.shape[1]


class Found(BaseCallback):
    """
    Writes down, from rollout to rollout, what there is to aim at, what is aimed at, and what policies do.

    :param run: of a sweep
    """

    model: RepresentedPPO

    def __init__(self, run: Run):
        super().__init__()
        self.run = run
        #: By name: a value for each look
        self.seen: dict[str, list[float]] = {name: [] for name in ("transitions", *SERIES)}
        self.bound: float | None = None
        self._rollouts = 0
        self._over = False

    def _on_rollout_start(self) -> None:
        self._over = self.model.num_timesteps >= self.run.transitions * self.model.k
        if self._rollouts and (self._rollouts % EVERY == 0 or self._over):
            self.look()
        self._rollouts += 1

    def _on_step(self) -> bool:
        return not self._over

    def _on_training_end(self) -> None:
        # Unless it was stopped at the beginning of a rollout, and there was a look
        if not self._over:
            self.look()

    def look(self) -> None:
        """Write down how it is now. The training goes on as if nobody had looked."""
        assignment = self.model.assignment
        assert isinstance(assignment, EpisodeAssignment)
        aims = [aim.utilities for aim in assignment.aims if aim is not None]
        # A full archive may have forgotten what is aimed at
        known = [*aims, *(episode.utilities for episode in assignment.archive.episodes)]
        with same_random_numbers_after():
            env = gym.make(self.run.env_id, **self.run.env_kwargs)
            env.reset(seed=EVALUATION_SEED)
            done = evaluate_welfare(self.model, env, 1, deterministic=True)
            env.close()
        self.bound = done.optimum
        now = {
            "transitions": self.model.num_timesteps // self.model.k,
            "found": best_of(np.array(known).reshape(len(known), -1), self.model.k),
            # Whoever aims at nothing is judged by what it does, which is no episode
            "aimed": float(np.max(aims, axis=0).mean()) if len(aims) == self.model.k else float("nan"),
            "likeliest": done.social_welfare,
        }
        for name, value in now.items():
            self.seen[name].append(round(value, 3))


def watch(run: Run, progress_bar: bool = False) -> dict[str, Any]:
    """
    :param run: of a sweep, with assignment "episodes" and at most 1024 agents
    :param progress_bar: show one
    :return: what was seen, as the file has it
    :raises ValueError: before the training, if it is another assignment
    """
    model = new_model(run)
    if not isinstance(model.assignment, EpisodeAssignment):
        close(model)
        raise ValueError(f"{run} remembers no episodes: choose an algorithm that does, such as episodes")
    callback = Found(run)
    model.learn(run.planned_transitions * run.k, callback=callback, progress_bar=progress_bar)
    close(model)
    # JSON knows no NaN
    seen = {name: [None if np.isnan(value) else value for value in values] for name, values in callback.seen.items()}
    return {"run": str(run), "env": run.env_id, "k": run.k, "seed": run.seed, "bound": callback.bound, **seen}


def plot(seen: dict[str, Any]) -> Figure:
    """
    :param seen: from :func:`watch`
    :return: social welfare against transitions per policy
    """
    figure = Figure(figsize=(8.0, 4.0), layout="constrained")
    axes = figure.subplots()
    # They are often the same: the later ones are thinner
    for (name, label), colour, width in zip(SERIES.items(), palette(len(SERIES)), (6.0, 3.5, 1.5), strict=True):
        values = [np.nan if value is None else value for value in seen[name]]
        axes.plot(seen["transitions"], values, color=colour, linewidth=width, label=label)
    if seen["bound"] is not None:
        axes.axhline(seen["bound"], color=DARK, linestyle=":", label="bound")
    axes.set_xlabel("transitions per policy")
    axes.set_ylabel("social welfare")
    axes.set_title(seen["run"], fontsize="medium", color=DARK)
    axes.legend(frameon=False, loc="lower right")
    axes.grid(color=FAINT, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _last(seen: dict[str, Any]) -> str:
    return ", ".join(f"{label} {seen[name][-1]}" for name, label in SERIES.items()) + f", of {seen['bound']}"


def main(argv: Sequence[str] | None = None) -> None:
    """
    Command line.

    :param argv: arguments, those of the process by default
    """
    command_line("found", __doc__, watch, plot, _last, argv)


if __name__ == "__main__":
    main()
