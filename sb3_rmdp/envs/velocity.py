"""Velocity tasks: MuJoCo robots whose agents each want to be carried at a speed of their own."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import gymnasium as gym
import numpy as np
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.envs.mujoco.walker2d_v5 import Walker2dEnv
from gymnasium.envs.registration import WrapperSpec
from gymnasium.utils import EzPickle

from sb3_rmdp.envs.contract import REWARD_FEATURES, REWARD_VECTOR, fingerprint, integer
from sb3_rmdp.envs.population import uniform_population
from sb3_rmdp.envs.reward_weights import RewardWeights
from sb3_rmdp.envs.states import physics_state, set_physics_state

#: Reward per step at exactly the wanted speed: 100 for a perfect episode of 1000 steps.
STEP_REWARD = 0.1

#: Length of the paper's episodes, of which a perfect one is worth 100
EPISODE_STEPS = 1000

#: An agent is paid within max_velocity / STEEPNESS of its speed.
STEEPNESS = 20.0

DEFAULT_N_AGENTS = 100

#: Agents whose weights are computed at a time: a million at once would take gigabytes in double precision.
AGENTS_AT_ONCE = 4096

# What copies of a task in this process share, by the fingerprint of the agents
_TARGETS: WeakValueDictionary[str, np.ndarray] = WeakValueDictionary()
_WEIGHTS: WeakValueDictionary[str, RewardWeights] = WeakValueDictionary()


def velocity_rewards(velocity: float | np.ndarray, targets: np.ndarray, max_velocity: float) -> np.ndarray:
    """
    What every agent earns by one step at a speed: ``0.1 * (1 - min(1, 20 * |v^i - v| / b))``.

    Source: the velocity tasks of section 4 of the paper, scaled so that a perfect 1000-step episode is worth 100.

    :param velocity: speed ``v`` of the step, in m/s; one, or an array of shape (..., 1) to be broadcast against the agents
    :param targets: (n_agents,) wanted speeds ``v^i``, in m/s
    :param max_velocity: ``b``, in m/s
    :return: (..., n_agents) float64 in [0, 0.1]
    """
    slope = STEP_REWARD * STEEPNESS / max_velocity
    return np.maximum(STEP_REWARD - slope * np.abs(targets - velocity), 0.0)


def feature_speeds(targets: np.ndarray, max_velocity: float, n_features: int) -> np.ndarray:
    """
    A grid of speeds, from the lowest to the highest at which anybody is paid who might have been drawn, or was given.

    :param targets: (n_agents,) wanted speeds, in m/s
    :param max_velocity: ``b``, in m/s
    :param n_features: number of speeds, so many that neighbours are ``b / 20`` apart at most: then everybody's pay is seen on
        the grid, and is at least half of the full pay at the speed of the grid that is next to the wanted one
    :return: (n_features,) float64 in m/s, ascending at equal distances
    :raises ValueError: if ``n_features`` is too small
    """
    tolerance = max_velocity / STEEPNESS
    slowest, fastest = min(0.0, targets.min()), max(max_velocity, targets.max())
    low, high = slowest - tolerance, fastest + tolerance
    fewest = math.ceil((high - low) / tolerance - 1e-6) + 1
    if integer("n_features", n_features, minimum=1) < fewest:
        raise ValueError(
            f"n_features={n_features} are too few for agents who want {slowest:g} to {fastest:g} m/s and are paid within "
            f"{tolerance:g} m/s of that, since somebody's pay would fall between two features; give at least {fewest}, better "
            f"{5 * fewest - 4}"
        )
    return np.linspace(low, high, n_features)


def velocity_features(velocity: float | np.ndarray, speeds: np.ndarray) -> np.ndarray:
    """
    Hat functions of a speed: where it lies between two speeds of a grid, so that ``w . phi`` interpolates linearly.

    :param velocity: speed of the step, in m/s; one, or an array of shape (..., 1)
    :param speeds: (m,) the grid, in m/s, ascending at equal distances, m at least 2
    :return: (..., m) float64 in [0, 1]; of a speed on the grid a one and zeros, within it two numbers that sum to 1, and
        further away than one distance only zeros
    """
    distance = (speeds[-1] - speeds[0]) / (len(speeds) - 1)
    return np.maximum(1.0 - np.abs(velocity - speeds) / distance, 0.0)


def _velocity_weights(targets: np.ndarray, max_velocity: float, speeds: np.ndarray) -> RewardWeights:
    """
    :param targets: (n_agents,) wanted speeds, in m/s
    :param max_velocity: ``b``, in m/s
    :param speeds: (m,) grid of speeds, in m/s
    :return: what every agent earns at every speed of the grid
    """
    weights = np.empty((len(targets), len(speeds)), dtype=np.float32)
    for start in range(0, len(targets), AGENTS_AT_ONCE):
        agents = slice(start, start + AGENTS_AT_ONCE)
        weights[agents] = velocity_rewards(speeds[:, None], targets[agents], max_velocity).T
    weights.setflags(write=False)
    return RewardWeights(weights)


class VelocityTargets(gym.Env[Any, Any], EzPickle):
    """
    Mixin that gives a MuJoCo env of gymnasium a population of agents with a wanted speed each.

    Put it before the base class. Dynamics, observations, terminations and info stay those of the base; the rewards become
    :func:`velocity_rewards` of ``info["x_velocity"]``. What the base env pays or charges for itself (forward, healthy,
    control and contact terms) stays in its info and does not enter.

    With ``n_features`` the task is a factored one, see :mod:`sb3_rmdp.envs.contract`, whose steps and learning cost the same
    for a million agents as for a few. Its features are :func:`velocity_features` of ``n_features`` speeds at equal distances
    ``d`` from ``-b / 20`` to ``b + b / 20`` (further, if ``targets`` are), where ``b`` is ``max_velocity``. Every agent earns
    exactly :func:`velocity_rewards` at these speeds, and in between what lies on the straight line. That is off by no more
    than ``10 * d / b`` of the full pay, ``11 / (n_features - 1)``: a tenth for 111 features, a twentieth for 221. It is off
    most at the wanted speed itself, where an agent between two features misses its peak.

    :param n_agents: number of agents, at least 1; by default 100, or as many as ``targets``
    :param population_seed: seed by which the wanted speeds are drawn from ``U[0, max_velocity)``, at least 0; the seed of
        ``reset`` never changes the agents
    :param max_velocity: ``b``, in m/s: largest wanted speed and, divided by 20, the tolerance of every agent; by default
        that of the class
    :param targets: (n_agents,) wanted speeds in m/s, finite; overrides the draw
    :param n_features: number of reward features of a factored task, at least 23 (more, if ``targets`` lie beyond
        ``[0, max_velocity]``), so that they are no further than ``b / 20`` apart; by default rewards are not factored
    :param kwargs: what the base env takes, by keyword
    :raises ValueError: if an argument is out of its range or ``n_agents`` contradicts ``targets``
    """

    #: ``b`` of the paper, in m/s.
    default_max_velocity: ClassVar[float]
    #: Arguments of the base env for which the paper's setting is not gymnasium's.
    base_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def __init__(
        self,
        *,
        n_agents: int | None = None,
        population_seed: int = 0,
        max_velocity: float | None = None,
        targets: Sequence[float] | np.ndarray | None = None,
        n_features: int | None = None,
        **kwargs: Any,
    ):
        if max_velocity is None:
            max_velocity = self.default_max_velocity
        if not (math.isfinite(max_velocity) and max_velocity > 0):
            raise ValueError(f"max_velocity={max_velocity!r} does not do; give a positive finite speed in m/s")
        if targets is None:
            count = DEFAULT_N_AGENTS if n_agents is None else n_agents
            speeds = uniform_population(count, max_velocity, integer("population_seed", population_seed, minimum=0))
        else:
            speeds = _explicit_targets(targets)
            if n_agents is not None and n_agents != len(speeds):
                raise ValueError(f"n_agents={n_agents} contradicts the {len(speeds)} targets; leave n_agents out")
        # The agents are the identity of the task: nobody changes them in place.
        speeds.setflags(write=False)
        speeds = _TARGETS.setdefault(fingerprint("targets", speeds), speeds)

        #: (n_agents,) float64, wanted speeds in m/s, read-only; one array for all copies of the task in a process.
        self.targets = speeds
        self.n_agents = len(speeds)
        self.max_velocity = float(max_velocity)
        self.population_seed = population_seed
        #: (n_features,) float64, speeds in m/s that the reward features stand for; ``None`` if rewards are not factored.
        self.feature_speeds: np.ndarray | None = None
        self._weights: RewardWeights | None = None
        if n_features is None:
            #: Who the agents are: changes with any wanted speed, with the tolerance, and with the features.
            self.population_id = fingerprint("velocity", speeds, self.max_velocity)
        else:
            self.feature_speeds = feature_speeds(speeds, self.max_velocity, n_features)
            self.population_id = name = fingerprint("velocity", speeds, self.max_velocity, n_features)
            self._weights = _WEIGHTS.get(name) or _velocity_weights(speeds, self.max_velocity, self.feature_speeds)
            _WEIGHTS[name] = self._weights

        super().__init__(**{**self.base_defaults, **kwargs})
        # Last, because the base class has just recorded its own arguments only.
        EzPickle.__init__(
            self,
            n_agents=n_agents,
            population_seed=population_seed,
            max_velocity=max_velocity,
            targets=targets if targets is None else speeds,
            n_features=n_features,
            **kwargs,
        )

    @property
    def reward_weights(self) -> np.ndarray | None:
        """(n_agents, n_features) float32, read-only, in [0, 0.1]; ``None`` if rewards are not factored."""
        return None if self._weights is None else self._weights.array

    #: What ``gymnasium.make`` has put around the environment to end its episodes; see :func:`tell_time_limit`
    _time_limit: Any = None

    @property
    def welfare_bound_steps(self) -> int:
        """Length of the episodes that :meth:`welfare_bound` is of: the limit of ``gymnasium.make``, 1000 without one."""
        return EPISODE_STEPS if self._time_limit is None else int(self._time_limit._max_episode_steps)

    def welfare_bound(self, k: int) -> float:
        """
        Upper bound of the mean return over the agents with ``k`` representatives, over episodes of
        :attr:`welfare_bound_steps` steps. Evaluations multiply it by the time limit that is there over that number.

        No speed profile beats the best ``k`` constant speeds; a gait that oscillates and has to accelerate stays below.

        :param k: number of representatives, at least 1
        :return: welfare, at most 0.1 per step: 100 in 1000 steps
        """
        from sb3_rmdp.oracles import velocity_welfare_bound  # late: environments do not need the solvers

        bound = velocity_welfare_bound(self.targets, self.max_velocity, k, speeds=self.feature_speeds)
        return float(bound) * (self.welfare_bound_steps / EPISODE_STEPS)

    def pay(self, velocity: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        What a step is worth, or a batch of them.

        :param velocity: speed of a step, in m/s; one, or an array of shape (..., 1)
        :return: (...) float64 mean rewards over the agents, and (..., n_agents) float32 rewards or, of a factored task,
            (..., n_features) float32 features
        """
        if self._weights is None or self.feature_speeds is None:
            rewards = velocity_rewards(velocity, self.targets, self.max_velocity)
            return np.add.reduce(rewards, axis=-1) / self.n_agents, rewards.astype(np.float32)
        features = velocity_features(velocity, self.feature_speeds).astype(np.float32)
        return self._weights.mean_reward(features), features

    def get_state(self) -> dict[str, Any]:
        """
        :return: the state of the simulation, from which the next steps are the same to the last bit
        """
        return physics_state(self)

    def set_state(self, qpos: Any, qvel: np.ndarray | None = None) -> None:
        """
        Go on from a state; or gymnasium's method of this name, which sets positions and velocities.

        :param qpos: from :meth:`get_state`; or positions (nq,)
        :param qvel: velocities (nv,), with positions only
        """
        if qvel is None:
            set_physics_state(self, qpos)
        else:
            super().set_state(qpos, qvel)  # type: ignore[misc]

    # The reward is a float; its type is left open because gymnasium declares numpy's float64 for its MuJoCo envs.
    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """
        One step of the base env, paid by the agents.

        :param action: (action_dim,) float32 torques within the action space
        :return: observation, mean reward over the agents, terminated, truncated, info of the base env and
            ``reward_vector`` or, of a factored task, ``reward_features``
        """
        observation, _, terminated, truncated, info = super().step(action)
        reward, info[REWARD_VECTOR if self._weights is None else REWARD_FEATURES] = self.pay(info["x_velocity"])
        # Some versions of the base envs answer with numpy's bool, which is not the bool that the contract of step() names.
        return observation, float(reward), bool(terminated), truncated, info


class HalfCheetahVelocityEnv(VelocityTargets, HalfCheetahEnv):
    """
    HalfCheetah with wanted speeds in [0, 4) m/s; 17 observations, 6 torques. Never terminates.

    Arguments: see :class:`VelocityTargets`.
    """

    default_max_velocity = 4.0


class AntVelocityEnv(VelocityTargets, AntEnv):
    """
    Ant with wanted speeds in [0, 3) m/s; 27 observations (no contact forces), 8 torques.

    Terminates when the torso leaves heights of 0.4 to 1.0 m (gymnasium: 0.2 to 1.0). Arguments: see :class:`VelocityTargets`.
    """

    default_max_velocity = 3.0
    base_defaults = MappingProxyType({"healthy_z_range": (0.4, 1.0), "include_cfrc_ext_in_observation": False})


class HopperVelocityEnv(VelocityTargets, HopperEnv):
    """
    Hopper with wanted speeds in [0, 2.5) m/s; 11 observations, 3 torques. Terminates when it falls.

    Arguments: see :class:`VelocityTargets`.
    """

    default_max_velocity = 2.5


class Walker2dVelocityEnv(VelocityTargets, Walker2dEnv):
    """
    Walker2d with wanted speeds in [0, 2.5) m/s; 17 observations, 6 torques. Terminates when it falls.

    Arguments: see :class:`VelocityTargets`.
    """

    default_max_velocity = 2.5


def tell_time_limit(env: gym.Env) -> gym.Env:
    """
    Tell a velocity task of the time limit around it, on which depends what its agents can have at best.

    The registered ids list this function as their additional wrapper, which ``gym.make`` calls last: see
    :func:`sb3_rmdp.envs.resource_gathering.step_limit_of_task`, which needs the limit as well.

    :param env: what ``gym.make`` has built so far
    :return: the same
    """
    base: Any = env.unwrapped
    one = env
    while isinstance(one, gym.Wrapper):
        if "_max_episode_steps" in vars(one):
            base._time_limit = one
        one = one.env
    if base.spec is not None:
        base.spec.additional_wrappers = TIME_LIMIT_TOLD
    return env


#: ``additional_wrappers`` of the registered ids.
TIME_LIMIT_TOLD = (WrapperSpec(name="tell_time_limit", entry_point=f"{__name__}:tell_time_limit", kwargs={}),)


def _explicit_targets(targets: Sequence[float] | np.ndarray) -> np.ndarray:
    """
    A copy of the wanted speeds that the user gave.

    :param targets: (n_agents,) numbers
    :return: (n_agents,) float64
    :raises ValueError: if these are not finite numbers in one dimension
    """
    try:
        speeds = np.array(targets, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"targets={targets!r} are no numbers; give one speed in m/s per agent") from None
    if speeds.ndim != 1 or not speeds.size:
        raise ValueError(f"targets have shape {speeds.shape}; give one speed per agent, shape (n_agents,)")
    if not np.isfinite(speeds).all():
        raise ValueError(f"targets={targets!r} hold a speed that is not finite; give finite speeds in m/s")
    return speeds
