"""What gymnasium's MuJoCo robots observe and report, and when they have fallen, for a batch of them."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import mujoco
import numpy as np

from sb3_rmdp.envs.velocity import AntVelocityEnv, HalfCheetahVelocityEnv, HopperVelocityEnv, Walker2dVelocityEnv


class Motion(NamedTuple):
    """
    A step of all robots. All arrays belong to this step alone.

    :param actions: (n_envs, action_dim) as they were given
    :param qpos: (n_envs, nq) positions after the step
    :param qvel: (n_envs, nv) velocities after the step
    :param velocity: (n_envs, 1 or 2) speeds in m/s: forward and, of robots that move in a plane, sideways
    :param forces: (n_envs, bodies, 6) contact forces, where the robot takes note of them
    :param heights: heights of start states, in m, of robots that report how far they are above them
    """

    actions: np.ndarray
    qpos: np.ndarray
    qvel: np.ndarray
    velocity: np.ndarray
    forces: np.ndarray | None
    heights: list[float]


#: Attributes that every robot has: what gymnasium reports, what a step of the simulation is, and who is paid for what
ALWAYS = (
    "_forward_reward_weight",
    "_ctrl_cost_weight",
    "_exclude_current_positions_from_observation",
    "frame_skip",
    "model.opt.timestep",
    "render_mode",
    "n_agents",
    "targets",
    "max_velocity",
    "feature_speeds",
    "_weights",
)


class Robot:
    """
    A robot that moves along a line, like HalfCheetah, which cannot fall; the others differ from it.

    Results are bit for bit those of gymnasium's environment: the same operations in the same order, over a batch.

    A robot never changes, so that infos which somebody looks at later are those of their step: environments whose settings
    change get another one, see :meth:`read`.

    :param settings: of all environments that are stepped together, as :meth:`read` gives them
    """

    #: Attributes of gymnasium's environment that enter into what it observes, reports and ends by.
    names: tuple[str, ...] = ()
    #: Whether infos tell how far the robot is above its start state
    tells_height = False

    def __init__(self, settings: tuple[Any, ...]):
        self.settings: dict[str, Any] = dict(zip((*ALWAYS, *self.names), settings, strict=True))
        #: Seconds that a step takes, as gymnasium computes them
        self.dt = self.settings["model.opt.timestep"] * self.settings["frame_skip"]

    @classmethod
    def read(cls) -> Callable[[Any], tuple[Any, ...]]:
        """A function of an environment to the settings that it has now."""
        return attrgetter(*ALWAYS, *cls.names)

    @classmethod
    def settings_of(cls, env: Any) -> dict[str, Any]:
        """
        :param env: an environment
        :return: everything in which environments that are stepped together must agree
        :raises ValueError: if gymnasium's environment has no such attributes in this version
        """
        told = (*ALWAYS[:3], *cls.names)
        missing = [name for name in told if not hasattr(env, name)]
        if missing:
            raise ValueError(f"gymnasium's {type(env).__name__} has no {', '.join(missing)} in this version")
        values = {name: getattr(env, name) for name in told}
        return {**values, "fullpath": env.fullpath, "dt": env.dt, "frame_skip": env.frame_skip, "agents": env.population_id}

    def place(self, env: Any) -> np.ndarray:
        """
        :param env: an environment
        :return: (1 or 2,) a view of where its robot is, in m, from which speeds are taken
        """
        return env.data.qpos[:1]

    def forces(self, env: Any) -> np.ndarray | None:
        """
        :param env: an environment
        :return: (bodies, 6) a view of its contact forces; None for a robot that takes no note of them
        """
        return None

    def observe(self, motion: Motion) -> np.ndarray:
        """
        :param motion: a step
        :return: (n_envs, observation_dim) float64
        """
        first = 1 if self.settings["_exclude_current_positions_from_observation"] else 0
        return np.concatenate((motion.qpos[:, first:], motion.qvel), axis=1)

    def healthy(self, motion: Motion) -> np.ndarray | None:
        """
        :param motion: a step
        :return: (n_envs,) bool; None for a robot that cannot fall
        """
        return None

    def info(self, motion: Motion, healthy: np.ndarray | None, i: int) -> dict[str, Any]:
        """
        :param motion: a step
        :param healthy: what :meth:`healthy` says of it
        :param i: index of an environment
        :return: what gymnasium's environment reports of it
        """
        return {"x_position": motion.qpos[i, 0], "x_velocity": motion.velocity[i, 0], **self.terms(motion, i)}

    def terms(self, motion: Motion, i: int) -> dict[str, Any]:
        """Gymnasium's own rewards and costs of environment i, of which ours are independent."""
        control = self.settings["_ctrl_cost_weight"] * np.sum(np.square(motion.actions[i]))
        return {"reward_forward": self.settings["_forward_reward_weight"] * motion.velocity[i, 0], "reward_ctrl": -control}

    def falls(self) -> bool:
        """Whether an unhealthy robot ends its episode."""
        return bool(self.settings.get("_terminate_when_unhealthy", False))


class Walker(Robot):
    """Walker2d."""

    names: tuple[str, ...] = ("_terminate_when_unhealthy", "_healthy_reward", "_healthy_z_range", "_healthy_angle_range")
    tells_height = True

    def observe(self, motion: Motion) -> np.ndarray:
        """See the base class."""
        first = 1 if self.settings["_exclude_current_positions_from_observation"] else 0
        clipped = np.minimum(np.maximum(motion.qvel, -10), 10)
        return np.concatenate((motion.qpos[:, first:], clipped), axis=1)

    def healthy(self, motion: Motion) -> np.ndarray:
        """See the base class."""
        low, high = np.transpose((self.settings["_healthy_z_range"], self.settings["_healthy_angle_range"]))
        height_and_angle = motion.qpos[:, 1:3]
        return ((low < height_and_angle) & (height_and_angle < high)).all(axis=1)

    def info(self, motion: Motion, healthy: np.ndarray | None, i: int) -> dict[str, Any]:
        """See the base class."""
        assert healthy is not None
        return {
            "x_position": motion.qpos[i, 0],
            "z_distance_from_origin": motion.qpos[i, 1] - motion.heights[i],
            "x_velocity": motion.velocity[i, 0],
            **self.terms(motion, i),
            "reward_survive": healthy[i] * self.settings["_healthy_reward"],
        }


class Hopper(Walker):
    """Hopper, which must keep its whole state within bounds."""

    names = (*Walker.names, "_healthy_state_range")

    def healthy(self, motion: Motion) -> np.ndarray:
        """See the base class."""
        low, high = self.settings["_healthy_state_range"]
        state = np.concatenate((motion.qpos[:, 2:], motion.qvel), axis=1)
        return super().healthy(motion) & ((low < state) & (state < high)).all(axis=1)

    def info(self, motion: Motion, healthy: np.ndarray | None, i: int) -> dict[str, Any]:
        """See the base class; gymnasium gives a plain float here."""
        assert healthy is not None
        return {**super().info(motion, healthy, i), "reward_survive": bool(healthy[i]) * self.settings["_healthy_reward"]}


class Ant(Robot):
    """Ant, which moves in a plane and may feel contacts."""

    names = (
        "_terminate_when_unhealthy",
        "_healthy_reward",
        "_healthy_z_range",
        "_contact_cost_weight",
        "_contact_force_range",
        "_main_body",
        "_include_cfrc_ext_in_observation",
    )

    def place(self, env: Any) -> np.ndarray:
        """See the base class."""
        return env.data.body(env._main_body).xpos[:2]

    def forces(self, env: Any) -> np.ndarray:
        """See the base class."""
        return env.data.cfrc_ext

    def observe(self, motion: Motion) -> np.ndarray:
        """See the base class."""
        first = 2 if self.settings["_exclude_current_positions_from_observation"] else 0
        parts = [motion.qpos[:, first:], motion.qvel]
        if self.settings["_include_cfrc_ext_in_observation"]:
            assert motion.forces is not None
            contacts = np.clip(motion.forces[:, 1:], *self.settings["_contact_force_range"])
            parts.append(contacts.reshape(len(contacts), -1))
        return np.concatenate(parts, axis=1)

    def healthy(self, motion: Motion) -> np.ndarray:
        """See the base class."""
        low, high = self.settings["_healthy_z_range"]
        height = motion.qpos[:, 2]
        finite = np.isfinite(motion.qpos).all(axis=1) & np.isfinite(motion.qvel).all(axis=1)
        return finite & (low <= height) & (height <= high)

    def info(self, motion: Motion, healthy: np.ndarray | None, i: int) -> dict[str, Any]:
        """See the base class."""
        assert healthy is not None and motion.forces is not None
        contacts = np.clip(motion.forces[i], *self.settings["_contact_force_range"])
        return {
            "x_position": motion.qpos[i, 0],
            "y_position": motion.qpos[i, 1],
            "distance_from_origin": np.linalg.norm(motion.qpos[i, :2], ord=2),
            "x_velocity": motion.velocity[i, 0],
            "y_velocity": motion.velocity[i, 1],
            **self.terms(motion, i),
            "reward_contact": -(self.settings["_contact_cost_weight"] * np.sum(np.square(contacts))),
            "reward_survive": healthy[i] * self.settings["_healthy_reward"],
        }


ROBOTS: dict[type, type[Robot]] = {
    HalfCheetahVelocityEnv: Robot,
    AntVelocityEnv: Ant,
    HopperVelocityEnv: Hopper,
    Walker2dVelocityEnv: Walker,
}


def equal_settings(settings: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    """
    :param settings: of an environment, see :meth:`Robot.read`
    :param others: of another one, or at another time
    :return: whether they are the same
    """
    try:
        return settings == others  # arrays in them are the same objects, as a rule
    except ValueError:
        return all(one is other or np.array_equal(one, other) for one, other in zip(settings, others, strict=True))


def simulate(model: Any, data: Any, frame_skip: int, forces: bool) -> None:
    """
    What gymnasium's ``do_simulation`` does once the torques are set.

    :param model: MuJoCo's model of one environment
    :param data: its state
    :param frame_skip: steps of the simulation
    :param forces: also compute contact forces, on which nothing else depends
    """
    mujoco.mj_step(model, data, nstep=frame_skip)
    if forces:
        mujoco.mj_rnePostConstraint(model, data)
