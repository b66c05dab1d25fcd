"""Copies of a velocity task, stepped together."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from sb3_rmdp.common.team import Team
from sb3_rmdp.envs.contract import REWARD_FEATURES, REWARD_VECTOR, integer
from sb3_rmdp.vec_env.batched import BatchedVecEnv, Moves
from sb3_rmdp.vec_env.robots import ROBOTS, Motion, Robot, equal_settings, simulate

#: With two cores, two threads took 1.4 times as long as one for 5 environments, 0.9 times for 10, 0.8 times for 20 and 50.
ENVS_PER_THREAD = 5


class VelocityVecEnv(BatchedVecEnv):
    """
    A DummyVecEnv for copies of one velocity task: MuJoCo steps each, all the rest is done for the batch, same results.

    :param env_fns: functions that make one environment each; with wrappers of ``gymnasium.make`` and SB3's ``Monitor`` only
    :param n_threads: threads that step MuJoCo, at least 1; each environment always belongs to one of them, so that results
        do not depend on it. More than one pays with many environments and idle cores: by default one for every
        :data:`ENVS_PER_THREAD` environments, at most one per core
    :raises ValueError: if these are other environments, or of different robots, populations or settings
    """

    env_classes = tuple(ROBOTS)
    _bound: ClassVar[tuple[str, ...]] = (
        *("_bases", "_read", "_settings", "_observes", "_robot", "_models", "_data", "_controls"),
        *("_chunks", "_places", "_qpos", "_qvel", "_forces", "_team"),
    )

    def __init__(self, env_fns: list[Callable[[], gym.Env]], n_threads: int | None = None):
        if n_threads is None:
            n_threads = max(1, min(os.cpu_count() or 1, len(env_fns) // ENVS_PER_THREAD))
        self.n_threads = min(integer("n_threads", n_threads, minimum=1), len(env_fns))
        super().__init__(env_fns)

    @classmethod
    def _check_alike(cls, bases: list[Any]) -> None:
        """See the base class."""
        if len({type(base) for base in bases}) > 1:
            raise ValueError(f"they are different robots, {sorted({type(base).__name__ for base in bases})}")
        first, *others = [ROBOTS[type(base)].settings_of(base) for base in bases]
        for settings in others:
            different = [f"{name} ({first[name]!r} and {value!r})" for name, value in settings.items() if value != first[name]]
            if different:
                raise ValueError(f"they differ in {', '.join(different)}")

    def _bind(self) -> None:
        super()._bind()
        self._bases: list[Any] = [part.base for part in self._layers]
        self._read = ROBOTS[type(self._bases[0])].read()
        self._take_hold(self._read(self._bases[0]))
        self._chunks = np.array_split(np.arange(self.num_envs), self.n_threads)
        if not hasattr(self, "_team"):
            self._team: Team[None] = Team(self.n_threads)

    def _take_hold(self, settings: tuple[Any, ...]) -> None:
        """
        Take hold of settings, and of where MuJoCo has the state of the environments.

        :param settings: of all environments
        """
        base = self._bases[0]
        # Whoever gave a list may write into it
        self._settings = settings = tuple(tuple(value) if isinstance(value, list) else value for value in settings)
        # Observations of other settings may not fit into the space any more
        self._observes = base._get_obs().shape == self.observation_space.shape
        self._robot: Robot = ROBOTS[type(base)](settings)
        self.reward_key = REWARD_VECTOR if base.reward_weights is None else REWARD_FEATURES
        # Views of MuJoCo's memory, which stays where it is as long as its objects live
        self._models, self._data = [one.model for one in self._bases], [one.data for one in self._bases]
        self._qpos, self._qvel = [data.qpos for data in self._data], [data.qvel for data in self._data]
        self._controls = [data.ctrl for data in self._data]
        self._places = [self._robot.place(one) for one in self._bases]
        forces = [self._robot.forces(one) for one in self._bases]
        self._forces = [force for force in forces if force is not None]

    def _fits(self, actions: np.ndarray) -> bool:
        if actions.dtype.kind not in "iuf" or actions.shape != (self.num_envs, len(self._controls[0])):
            return False
        return self._alike() and self._observes and self._robot.settings["render_mode"] != "human"

    def _alike(self) -> bool:
        """Whether all environments have the same settings now, which are taken hold of."""
        first, *others = [self._read(base) for base in self._bases]
        if not all(equal_settings(settings, first) for settings in others):
            return False
        moved = [base.model for base in self._bases] != self._models or [base.data for base in self._bases] != self._data
        if moved or not equal_settings(self._settings, first):
            self._take_hold(first)
        return True

    def _simulate(self, actions: np.ndarray, chunk: np.ndarray) -> None:
        """
        Step MuJoCo in some of the environments.

        :param actions: (n_envs, action_dim)
        :param chunk: indices of the environments
        """
        frame_skip, forces = self._robot.settings["frame_skip"], bool(self._forces)
        for i in chunk:
            self._controls[i][:] = actions[i]
            simulate(self._models[i], self._data[i], frame_skip, forces)

    def _advance(self, actions: np.ndarray) -> Moves:
        robot, n_envs, base = self._robot, self.num_envs, self._bases[0]
        before = np.concatenate(self._places).reshape(n_envs, -1)
        self._team.run([partial(self._simulate, actions, chunk) for chunk in self._chunks])
        motion = Motion(
            # The caller may write into its array again before somebody looks at the infos
            actions=actions.copy(),
            qpos=np.concatenate(self._qpos).reshape(n_envs, -1),
            qvel=np.concatenate(self._qvel).reshape(n_envs, -1),
            velocity=(np.concatenate(self._places).reshape(n_envs, -1) - before) / robot.dt,
            forces=np.stack(self._forces) if self._forces else None,
            heights=[float(one.init_qpos[1]) for one in self._bases] if robot.tells_height else [],
        )
        means, vectors = base.pay(motion.velocity[:, :1])
        healthy = robot.healthy(motion)
        fallen = [] if healthy is None or not robot.falls() or healthy.all() else np.flatnonzero(~healthy).tolist()

        def info(i: int) -> dict[str, Any]:
            return robot.info(motion, healthy, i)

        return Moves(robot.observe(motion), means.tolist(), vectors, fallen, info)

    def close(self) -> None:
        """See SB3; threads end as well."""
        self._team.close()
        super().close()
