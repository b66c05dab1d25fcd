"""
How a training came to its groups: where its representatives are, what their agents have, and who was sent far away.

    python -m benchmarks.moves benchmarks/sweeps/figure3_robots.yml --env rmdp/HopperVelocity-v0 --algorithm em --seed 0

Trains one run of a sweep anew, as the sweep does, and writes what it saw to benchmarks/results/moves-*.json, with a picture
beside it. With --draw it only draws the picture of a file anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from matplotlib.figure import Figure
from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.watching import command_line
from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.assignment import EMAssignment, EpisodeAssignment
from sb3_rmdp.plots.style import DARK, FAINT, palette
from sb3_rmdp.sweep.config import Run
from sb3_rmdp.sweep.running import close, new_model

#: Rollouts between two states that are written down
EVERY = 5


def places_of(env: gym.Env) -> tuple[np.ndarray, str]:
    """
    :param env: represented environment
    :return: where each agent is, (n_agents,): the speed that it wants, or else its number; and what that is
    """
    if env.has_wrapper_attr("targets"):
        return np.asarray(env.get_wrapper_attr("targets"), dtype=np.float64), "speed, m/s"
    return np.arange(env.get_wrapper_attr("n_agents"), dtype=np.float64), "agent"


class Moves(BaseCallback):
    """
    Writes down, from rollout to rollout, where representatives are and who is sent away.

    :param places: of agents, (n_agents,); a representative is in the midst of its agents, each of whom counts as what it has
    :param until: transitions per policy after which the training is stopped, as the sweep does where more are planned
    """

    model: RepresentedPPO

    def __init__(self, places: np.ndarray, until: int):
        super().__init__()
        self.places, self.until = places, until
        #: By rollout: transitions per policy, and of each representative its place, its agents, and what welfare they make up
        self.states: list[dict[str, Any]] = []
        #: Who was sent away, from where and with which agents, to an episode that paid its new agents so much welfare
        self.moves: list[dict[str, Any]] = []
        self._rollouts = 0
        self._before: dict[str, Any] = {}
        self._over = False

    def _on_rollout_start(self) -> None:
        self._over = self.model.num_timesteps >= self.until * self.model.k

    def _on_step(self) -> bool:
        return not self._over

    def _on_rollout_end(self) -> None:
        # Whoever assigns by returns knows them; others have no places
        assignment = self.model.assignment
        assert isinstance(assignment, EMAssignment)
        q, who = assignment.q.cpu().numpy(), assignment.representatives
        state: dict[str, Any] = {"transitions": self.model.num_timesteps // self.model.k}
        state["places"] = [self._place(q[:, j], who == j) for j in range(self.model.k)]
        state["agents"] = [int((who == j).sum()) for j in range(self.model.k)]
        state["welfare"] = [self._welfare(q[:, j], who == j) for j in range(self.model.k)]
        if isinstance(assignment, EpisodeAssignment):
            self.moves += [
                self._move(assignment, state["transitions"], lesson.representative)
                for lesson in assignment.lessons()
                if lesson.new
            ]
        if self._rollouts % EVERY == 0:
            self.states.append(state)
        self._rollouts += 1
        self._before = state

    def _move(self, assignment: EpisodeAssignment, transitions: int, j: int) -> dict[str, Any]:
        """Representative j was sent away after this rollout: what it had, and what the episode paid to its new agents."""
        aim, before = assignment.aims[j], self._before
        assert aim is not None
        returns = th.as_tensor(aim.returns, dtype=th.float32, device=assignment.alpha.device)[:, None]
        paid = assignment.reward_weights.of_agents(returns)[:, 0].cpu().numpy()
        new = assignment.representatives == j
        return {
            "transitions": transitions,
            "representative": j,
            "from": before["places"][j],
            "agents": before["agents"][j],
            "welfare": before["welfare"][j],
            "to": self._place(paid, new),
            "new_agents": int(new.sum()),
            "paid": self._welfare(paid, new),
            "lasting": aim.trajectory.truncated,
        }

    def _place(self, utilities: np.ndarray, served: np.ndarray) -> float | None:
        counts = np.maximum(utilities, 0.0) * served
        return round(float(np.average(self.places, weights=counts)), 3) if counts.any() else None

    def _welfare(self, utilities: np.ndarray, served: np.ndarray) -> float:
        return round(float(utilities[served].sum()) / len(utilities), 3)


def watch(run: Run, progress_bar: bool = False) -> dict[str, Any]:
    """
    :param run: of a sweep, with an assignment by returns
    :param progress_bar: show one
    :return: what was seen, as the file has it
    :raises ValueError: before the training, if the assignment knows no returns
    """
    env = gym.make(run.env_id, **run.env_kwargs)
    places, axis = places_of(env)
    env.close()
    model = new_model(run)
    if not isinstance(model.assignment, EMAssignment):
        close(model)
        raise ValueError(f"{run} does not assign by returns: choose an algorithm that does, such as episodes or em")
    callback = Moves(places, run.transitions)
    model.learn(run.planned_transitions * run.k, callback=callback, progress_bar=progress_bar)
    close(model)
    about = {"run": str(run), "env": run.env_id, "k": run.k, "algorithm": run.algorithm, "seed": run.seed, "axis": axis}
    return {**about, "moves": callback.moves, "states": callback.states}


def plot(seen: dict[str, Any]) -> Figure:
    """
    :param seen: from :func:`watch`
    :return: places of representatives above, with those who are sent away, and below what welfare their agents make up
    """
    figure = Figure(figsize=(8.0, 6.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    colours = palette(seen["k"])
    transitions = [state["transitions"] for state in seen["states"]]
    for j, colour in enumerate(colours):
        # Nobody knows where a representative is that has just been sent away: a gap
        places = [np.nan if state["places"][j] is None else state["places"][j] for state in seen["states"]]
        above.plot(transitions, places, color=colour, label=str(j))
        for move in seen["moves"]:
            if move["representative"] == j and None not in (move["from"], move["to"]):
                above.plot([move["transitions"]] * 2, [move["from"], move["to"]], color=colour, linewidth=0.8)
                # Where it goes: a full mark if that episode was not over before its time
                mark = dict(marker="o", markersize=4, fillstyle="full" if move["lasting"] else "none")
                above.plot(move["transitions"], move["to"], color=colour, **mark)
    above.set_ylabel(f"midst of its agents: {seen['axis']}")
    above.set_title(seen["run"], fontsize="medium", color=DARK)
    figure.legend(loc="outside lower center", ncols=min(seen["k"], 10), frameon=False, title="representative")
    below.stackplot(transitions, np.transpose([state["welfare"] for state in seen["states"]]), colors=colours)
    below.set_ylabel("social welfare")
    below.set_xlabel("transitions per policy")
    for axes in (above, below):
        axes.grid(color=FAINT, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """
    Command line.

    :param argv: arguments, those of the process by default
    """
    command_line("moves", __doc__, watch, plot, lambda seen: f"{len(seen['moves'])} moves", argv)


if __name__ == "__main__":
    main()
