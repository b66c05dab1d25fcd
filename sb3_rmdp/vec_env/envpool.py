"""MuJoCo steps from EnvPool, an optional library that steps all copies of a robot in threads of its own."""

from __future__ import annotations

import importlib
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.mujoco import mujoco_env
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from sb3_rmdp.envs.contract import REWARD_FEATURES, REWARD_VECTOR, integer
from sb3_rmdp.envs.velocity import AntVelocityEnv, HalfCheetahVelocityEnv, HopperVelocityEnv, Walker2dVelocityEnv
from sb3_rmdp.vec_env.batched import layers
from sb3_rmdp.vec_env.infos import BatchInfos
from sb3_rmdp.vec_env.robots import ROBOTS, equal_settings

#: EnvPool's name of a robot, and gymnasium's file of the model that it has.
TASKS: dict[type, tuple[str, str]] = {
    HalfCheetahVelocityEnv: ("HalfCheetah-v5", "half_cheetah.xml"),
    AntVelocityEnv: ("Ant-v5", "ant.xml"),
    HopperVelocityEnv: ("Hopper-v5", "hopper.xml"),
    Walker2dVelocityEnv: ("Walker2d-v5", "walker2d_v5.xml"),
}

#: What EnvPool reports of a step, under gymnasium's names; which of these depends on the robot.
REPORTED = ("x_position", "y_position", "distance_from_origin", "x_velocity", "y_velocity")

#: EnvPool takes seeds up to here.
SEEDS = 2**31

#: EnvPool counts steps as well, but calls an episode that terminates in its last step a truncated one.
NO_LIMIT = 2**30

#: What an environment has of its own, where all copies of a task differ.
OF_ONE_COPY = frozenset(
    ("close", "data", "do_simulation", "get_episode_lengths", "get_episode_rewards", "get_episode_times", "get_total_steps")
    + ("np_random", "render", "reset", "reset_model", "set_state", "state_vector", "step")
)


class EnvPoolVecEnv(VecEnv):
    """
    Copies of one velocity task, stepped by EnvPool; to be installed by ``pip install "sb3_rmdp[envpool]"``.

    Does as ``vec_env_cls`` of :func:`make_represented_vec_env` and of SB3's ``make_vec_env``. One environment is made, to
    learn the task from: robot, agents, settings, time limit. It never moves, and answers for all copies what is asked of the
    task by ``get_attr`` and ``env_method``. It is there for machines with many cores: on two, it took 1.4 to 1.9 times as
    long as :class:`VelocityVecEnv` with 5 HalfCheetahs, and as long with 50. All else is as in a DummyVecEnv, except that

    - EnvPool 1.2 simulates with MuJoCo 3.6.0, whatever is installed, and gymnasium's v5 models. Beside gymnasium on 3.6.0,
      50 copies of every robot made 60 random steps from the same states with the same observations, bit for bit. Beside
      MuJoCo 4.0.0 they were up to 4e-6 (Ant) or 4e-14 (the others) apart after one step, and after 20 Ants went other ways.
    - Episodes begin by other random numbers from the same distribution. Copy i has ``seed + i``, of which EnvPool takes
      31 bits; equal seeds give equal results, whatever ``n_threads`` is.
    - Infos have positions and speeds, but not gymnasium's own rewards and costs, which do not enter into ours. Positions of
      the Ant are one step of the simulation older, up to 3e-3 m; its speeds are not.
    - Episodes are recorded in any case, by the ``Monitor`` of the first environment, if it has a file there.
    - Copies cannot be changed or drawn: :class:`VelocityVecEnv` can. Pickles and copies of this vec env have the task, not
      the state, and begin with ``reset``.

    :param env_fns: as many functions as there shall be copies, at least one. Only the first is called: all must make the
        same task, with wrappers of ``gymnasium.make`` and SB3's ``Monitor`` only
    :param n_threads: threads that step MuJoCo, at least 1; by default one per core, at most one per copy
    :raises ImportError: if EnvPool is not installed
    :raises ValueError: if EnvPool does not have this environment, or not with these settings
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env]], n_threads: int | None = None):
        _import_envpool()
        if n_threads is None:
            n_threads = os.cpu_count() or 1
        self.n_threads = min(integer("n_threads", n_threads, minimum=1), len(env_fns))
        env = env_fns[0]()
        try:
            self._base, limit, monitor = layers(env)
            self._config = pool_config(self._base)
        except ValueError as error:
            env.close()
            raise ValueError(f"EnvPool cannot step this environment: {error}; use fastest_vec_env in its place") from None
        self._env = Monitor(env) if monitor is None else monitor
        self._limit = limit
        self._read = ROBOTS[type(self._base)].read()
        self._known = self._settings()
        self._dt = self._base.dt
        super().__init__(len(env_fns), env.observation_space, env.action_space)
        self._pool: Any = None
        self._actions = np.empty(0)
        # Of the episodes under way
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)
        self._returns = np.zeros(self.num_envs)

    def reset(self) -> np.ndarray:
        """
        Begin episodes in all copies, from seeds if :meth:`seed` was called since the last time.

        :return: (n_envs, observation_dim) float64
        """
        self._check_settings()
        if self._pool is None or None not in self._seeds:
            self._pool = self._make_pool()
        self._reset_seeds()
        self._reset_options()
        return self._begin(list(range(self.num_envs)))

    def step_async(self, actions: np.ndarray) -> None:
        """
        :param actions: (n_envs, action_dim) torques within the action space
        :raises ValueError: if these are no numbers, or of another shape, or the settings of the task were changed
        """
        self._check_settings()
        self._actions = np.asarray(actions)
        expected = (self.num_envs, *(self.action_space.shape or ()))
        if self._actions.shape != expected or self._actions.dtype.kind not in "iuf":
            given = f"{self._actions.dtype} of shape {self._actions.shape}"
            raise ValueError(f"actions are {given}; give one row of numbers per environment, shape {expected}")

    def step_wait(self) -> VecEnvStepReturn:
        """
        See SB3; the infos are a :class:`BatchInfos`.

        :raises RuntimeError: before the first reset
        """
        if self._pool is None:
            raise RuntimeError("there are no episodes yet: call reset() before step()")
        observations, _, terminated, _, motion = self._pool.step(self._actions)
        means, vectors = self._base.pay(motion["x_velocity"][:, None])
        self._lengths += 1
        self._returns += means

        def info_of(i: int) -> dict[str, Any]:
            return {**{name: motion[name][i] for name in REPORTED if name in motion}, "TimeLimit.truncated": False}

        infos = BatchInfos(vectors, info_of, REWARD_VECTOR if self._base.reward_weights is None else REWARD_FEATURES)
        dones = terminated | (self._lengths >= (math.inf if self._limit is None else self._limit._max_episode_steps))
        over = np.flatnonzero(dones).tolist()
        for i in over:
            infos[i]["episode"] = self._end_episode(i, infos[i])
            infos[i]["TimeLimit.truncated"] = not terminated[i]
            infos[i]["terminal_observation"] = observations[i].copy()
        if over:
            observations[over] = self._begin(over)
        # SB3 declares a list; what it and its wrappers do with it, BatchInfos can do
        return observations, means.astype(np.float32), dones, infos  # type: ignore[return-value]

    def _settings(self) -> tuple[Any, ...]:
        return *self._read(self._base), self._base._reset_noise_scale

    def _check_settings(self) -> None:
        """
        :raises ValueError: if somebody has set what EnvPool's copies were made with, and would not hear of
        """
        settings = self._settings()
        # Agents and their wishes are looked at in every step, and may be others
        if equal_settings(settings, self._known):
            return
        if pool_config(self._base) != self._config or self._base.dt != self._dt:
            raise ValueError("settings of the task were changed, and copies within EnvPool keep theirs: make another vec env")
        self._known = settings

    def _make_pool(self) -> Any:
        """Copies with the seeds that are set; EnvPool takes seeds here only."""
        seeds = self._seeds if None not in self._seeds else np.random.SeedSequence().generate_state(self.num_envs)
        return _import_envpool().make(
            TASKS[type(self._base)][0],
            env_type="gymnasium",
            num_envs=self.num_envs,
            num_threads=self.n_threads,
            seed=[int(seed) % SEEDS for seed in seeds],  # type: ignore[arg-type]  # none is None
            max_episode_steps=NO_LIMIT,
            **self._config,
        )

    def _begin(self, copies: list[int]) -> np.ndarray:
        """
        Begin episodes in some copies.

        :param copies: their indices
        :return: (len(copies), observation_dim) first observations
        """
        self._lengths[copies] = 0
        self._returns[copies] = 0.0
        return self._pool.reset(np.array(copies, dtype=np.int32))[0]

    def _end_episode(self, i: int, info: dict[str, Any]) -> dict[str, Any]:
        """
        What SB3's Monitor records of an episode.

        :param i: index of the copy in which it has ended
        :param info: of the last step
        :return: the episode's return, length, seconds since the start, and keywords
        """
        episode: dict[str, Any] = {"r": round(float(self._returns[i]), 6), "l": int(self._lengths[i])}
        episode["t"] = round(time.time() - self._env.t_start, 6)
        episode.update((key, info[key]) for key in self._env.info_keywords)
        if self._env.results_writer is not None:
            self._env.results_writer.write_row(episode)
        return episode

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """See SB3; of the task, or an AttributeError where copies differ."""
        return [self._of_task(attr_name)] * len(list(self._get_indices(indices)))

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """See SB3; of the task, or an AttributeError where copies differ."""
        method = self._of_task(method_name)
        return [method(*method_args, **method_kwargs) for _ in self._get_indices(indices)]

    def _of_task(self, name: str) -> Any:
        if name in OF_ONE_COPY:
            raise AttributeError(f"copies within EnvPool cannot be asked for {name!r} one by one: use VelocityVecEnv for that")
        return self._env.get_wrapper_attr(name)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Raises NotImplementedError."""
        raise NotImplementedError(f"{attr_name!r} cannot be set within EnvPool: make another vec env, or use VelocityVecEnv")

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """See SB3; ``Monitor`` is always there."""
        return [is_wrapped(self._env, wrapper_class)] * len(list(self._get_indices(indices)))

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Raises NotImplementedError."""
        raise NotImplementedError("EnvPoolVecEnv does not render: use VelocityVecEnv or DummyVecEnv for pictures and videos")

    def close(self) -> None:
        """See SB3; threads end as well."""
        self._pool = None
        self._env.close()

    def __getstate__(self) -> dict[str, Any]:
        # Where the copies are in their episodes is known to EnvPool alone
        return {**self.__dict__, "_pool": None}


def pool_config(env: Any) -> dict[str, Any]:
    """
    Settings by which EnvPool does what gymnasium's environment does.

    :param env: an environment without wrappers
    :return: arguments of ``envpool.make``
    :raises ValueError: if EnvPool does not have this environment, or not with these settings
    """
    if type(env) not in TASKS:
        raise ValueError(f"{type(env).__name__} is none of {', '.join(kind.__name__ for kind in TASKS)}")
    if env.render_mode == "human":
        raise ValueError('render_mode="human" draws within every step of an environment')
    settings = ROBOTS[type(env)].settings_of(env)
    model = Path(mujoco_env.__file__).parent / "assets" / TASKS[type(env)][1]
    if Path(settings["fullpath"]) != model:
        raise ValueError(f"xml_file={settings['fullpath']!r} is another model than EnvPool's {model.name}")
    if settings.get("_main_body", 1) not in (1, "torso"):
        raise ValueError(f"EnvPool takes the speed of the torso, not of main_body={settings['_main_body']!r}")
    config: dict[str, Any] = {
        "frame_skip": int(settings["frame_skip"]),
        "reset_noise_scale": float(env._reset_noise_scale),
        "exclude_current_positions_from_observation": bool(settings["_exclude_current_positions_from_observation"]),
    }
    for name, value in settings.items():
        if name.endswith("_range"):
            # _healthy_z_range is healthy_z_min and healthy_z_max
            stem = name[1 : -len("_range")]
            config[f"{stem}_min"], config[f"{stem}_max"] = map(float, value)
    if "_terminate_when_unhealthy" in settings:
        config["terminate_when_unhealthy"] = bool(settings["_terminate_when_unhealthy"])
    if "_include_cfrc_ext_in_observation" in settings:
        config["use_contact_force"] = bool(settings["_include_cfrc_ext_in_observation"])
    if type(env) is HopperVelocityEnv and config.pop("healthy_z_max") != math.inf:
        raise ValueError(f"EnvPool's Hopper has no upper end of healthy_z_range={settings['_healthy_z_range']!r}")
    return config


def _import_envpool() -> ModuleType:
    try:
        # By name, since type checkers cannot follow what is not installed
        return importlib.import_module("envpool")
    except ImportError as error:
        raise ImportError('EnvPoolVecEnv needs EnvPool: pip install "sb3_rmdp[envpool]"') from error
