"""Pictures of the assignment while it is learned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Figure as LoggedFigure
from stable_baselines3.common.logger import TensorBoardOutputFormat

from sb3_rmdp.common.full_disk import warned_of_the_disk
from sb3_rmdp.common.whole_files import check_target
from sb3_rmdp.plots.assignments import plot_assignment_histogram, plot_flips, plot_group_sizes
from sb3_rmdp.plots.style import save_figure

if TYPE_CHECKING:
    from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm

#: SB3's outputs that cannot write figures, and raise an error if they are to
WITHOUT_FIGURES = ("stdout", "log", "json", "csv")


class AssignmentPlotCallback(BaseCallback):
    """
    Draws who is served by whom, and how many agents changed their representative, every so many rollouts.

    To TensorBoard go ``plots/agents``, the number of agents of each representative, and ``plots/flips``, over time, how many
    agents have another representative than at the picture before. The newest of these numbers is logged as
    ``assignment/flips``, too. Agents that went to and fro between two pictures are none of them; ``assignment/reassigned``
    counts rollout by rollout. Pictures are written with the next line of the log: let ``n_rollouts`` be a multiple of the
    ``log_interval`` of ``learn``, or some are overwritten before.

    :param n_rollouts: rollouts from one picture to the next, at least 1
    :param targets: what tells agents apart, e.g. their wanted velocities, shape (n_agents,): agents are then drawn over it,
        in the colours of their representatives
    :param xlabel: what the targets are
    :param folder: folder to save the pictures to as well, as ``agents_<timesteps>.png`` and, always the newest,
        ``flips.png``; made if missing. Where they cannot be written, as on a full disk, there is a warning
    :param verbose: as in SB3
    :raises ValueError: if n_rollouts is below 1; before a training, if targets are not one per agent
    """

    model: RepresentedOnPolicyAlgorithm

    def __init__(
        self,
        n_rollouts: int = 10,
        targets: ArrayLike | None = None,
        xlabel: str = "target",
        folder: str | Path | None = None,
        verbose: int = 0,
    ):
        super().__init__(verbose)
        if n_rollouts < 1:
            raise ValueError(f"n_rollouts={n_rollouts} counts rollouts between pictures: choose 1 or more")
        self.n_rollouts = n_rollouts
        self.targets = None if targets is None else np.asarray(targets, dtype=np.float64)
        self.xlabel = xlabel
        self.folder = None if folder is None else Path(folder)
        self._n_done = 0
        #: Timesteps of the pictures, the beginning of the training before them, and the flips between each two
        self.timesteps: list[int] = []
        self.flips: list[int] = []
        self._before = np.zeros(0, dtype=np.int64)

    def _init_callback(self) -> None:
        if self.targets is not None and self.targets.shape != (self.model.n_agents,):
            raise ValueError(f"targets has shape {self.targets.shape}: pass one per agent, ({self.model.n_agents},)")
        if self.folder is not None:
            check_target(self.folder / "flips.png")

    def _on_training_start(self) -> None:
        # A training that goes on keeps its history, another one begins a new one
        if not self.timesteps or self.num_timesteps < self.timesteps[-1] or len(self._before) != self.model.n_agents:
            self._n_done = 0
            self.timesteps, self.flips = [self.num_timesteps], []
            self._before = self.model.assignment.representatives

    def get_state(self) -> dict[str, Any]:
        """
        :return: the pictures so far
        """
        return {"done": self._n_done, "timesteps": self.timesteps, "flips": self.flips, "before": self._before}

    def set_state(self, state: dict[str, Any]) -> None:
        """
        :param state: from :meth:`get_state`, of a training that goes on
        """
        self._n_done, self._before = state["done"], state["before"]
        self.timesteps, self.flips = list(state["timesteps"]), list(state["flips"])

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self._n_done += 1
        if self._n_done % self.n_rollouts != 0:
            return
        now = self.model.assignment.representatives
        self.flips.append(int((now != self._before).sum()))
        self.timesteps.append(self.num_timesteps)
        self._before = now
        self.logger.record("assignment/flips", self.flips[-1])

        to_tensorboard = any(isinstance(output, TensorBoardOutputFormat) for output in self.logger.output_formats)
        if not to_tensorboard and self.folder is None:
            return  # nobody would see them
        agents, flips = self._draw_agents(now), self._draw_flips()
        if self.folder is not None:
            with warned_of_the_disk("a picture of the assignment"):
                save_figure(agents, self.folder / f"agents_{self.num_timesteps}.png")
                save_figure(flips, self.folder / "flips.png")
        for name, figure in (("agents", agents), ("flips", flips)):
            if to_tensorboard:
                self.logger.record(f"plots/{name}", LoggedFigure(figure, close=True), exclude=WITHOUT_FIGURES)

    def _draw_agents(self, served_by: np.ndarray) -> Figure:
        if self.targets is None:
            return plot_group_sizes(served_by, self.model.k)
        return plot_assignment_histogram(self.targets, served_by, self.model.k, xlabel=self.xlabel)

    def _draw_flips(self) -> Figure:
        return plot_flips(self.timesteps, self.flips, self.model.n_agents)
