"""What every on-policy backbone of represented MDPs shares: set-up, checks of environments, predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp.common.agent_weights import AgentWeights
from sb3_rmdp.common.arguments import refusal, shown
from sb3_rmdp.common.assignment import DEFAULT_ASSIGNMENT, Assignment, assignment_class, make_assignment
from sb3_rmdp.common.attributes import cannot_learn
from sb3_rmdp.common.buffers import VectorRewardDictRolloutBuffer, VectorRewardRolloutBuffer
from sb3_rmdp.common.collection import RolloutCollection
from sb3_rmdp.common.finite import ObservationCheck, check_parameters
from sb3_rmdp.common.model_arguments import check_arguments, check_exploration, policy_name, recheck
from sb3_rmdp.common.population import (
    Population,
    agent_weights_of,
    check_agent,
    check_budget,
    check_no_reward_normalization,
    check_same_normalization,
    check_same_population,
    looked_at,
    normalizes_observations,
    population_of,
)
from sb3_rmdp.common.representative import Representative
from sb3_rmdp.common.saving import SavedRepresented
from sb3_rmdp.common.scoring import check_evaluations_apart, score_as_usual, score_by_welfare
from sb3_rmdp.common.welfare import make_welfare
from sb3_rmdp.vec_env import RepresentedActions, represented_vec_env

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sb3_rmdp.service import EvaluationEpisodes, NewUsers
    from sb3_rmdp.service.assign import Users


class RepresentedOnPolicyAlgorithm(RolloutCollection, SavedRepresented):
    """
    Base of represented algorithms; a backbone derives from it and from SB3's algorithm, in this order, and adds ``train``.

    :param policy: policy class or its name in ``policy_aliases``
    :param env: a gymnasium id or an environment that can be made again, of which k copies are made; any other environment,
        in which representatives take turns; or a vec env, used as it is
    :param k: number of representatives, 1 <= k <= n_agents
    :param assignment: name or class of the assignment, see :mod:`sb3_rmdp.common.assignment`
    :param assignment_kwargs: its own arguments
    :param welfare: name of the welfare, see :mod:`sb3_rmdp.common.welfare`
    :param welfare_kwargs: its own arguments
    :param normalize_observations: normalise observations by running moments, inside the policy
    :param critic_rank: number of the critic's values, 1 to n_agents; by default one per agent, or per reward feature
    :param verbose: as in SB3
    :param kwargs: arguments of the backbone
    :raises ValueError: if k is out of range, the assignment unknown, or the environment no represented MDP
    """

    rollout_buffer: VectorRewardRolloutBuffer

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str | None,
        k: int | None = None,
        assignment: str | type[Assignment] = DEFAULT_ASSIGNMENT,
        assignment_kwargs: dict[str, Any] | None = None,
        welfare: str = "utilitarian",
        welfare_kwargs: dict[str, Any] | None = None,
        normalize_observations: bool = True,
        critic_rank: int | None = None,
        verbose: int = 0,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ):
        # `load` constructs without k and without set-up, and fills the attributes in
        own: dict[str, Any] = dict(k=k, assignment=assignment, assignment_kwargs=assignment_kwargs, welfare=welfare)
        own |= dict(welfare_kwargs=welfare_kwargs, normalize_observations=normalize_observations, critic_rank=critic_rank)
        if _init_setup_model:
            checked = check_arguments({"policy": policy, "verbose": verbose, **own, **kwargs}, self.policy_aliases)
            verbose, own = checked["verbose"], {name: checked[name] for name in own}
            kwargs = {name: checked[name] for name in kwargs}
            check_critic_rank(own["critic_rank"], own["assignment"])
            env = represented_vec_env(looked_at(env, own["k"]), own["k"], verbose)
            check_exploration(kwargs.get("use_sde", False), env.action_space)
        self.k = int(own["k"] or 0)
        self.assignment_method, self.assignment_kwargs = own["assignment"], own["assignment_kwargs"]
        self.welfare_method, self.welfare_kwargs = own["welfare"], own["welfare_kwargs"]
        self.normalize_observations, self.critic_rank = own["normalize_observations"], own["critic_rank"]
        self.n_agents = 0  # until an environment, or a saved model, tells
        self.n_features: int | None = None
        self.population_id: str | None = None
        self.reward_weights = self._balanced = AgentWeights(0)
        self.trained_under_vec_normalize: bool | None = None
        super().__init__(policy, env, verbose=verbose, _init_setup_model=_init_setup_model, **kwargs)  # type: ignore[arg-type]

    def _setup_model(self) -> None:
        recheck(self)
        # A loaded model has its numbers, and no weights unless there is an environment
        self.reward_weights = self._balanced = AgentWeights(self.n_agents, size=self.n_features)
        if self.env is not None:
            self._check_env(self.env)
        check_budget(self.k, self.n_agents)
        if self.critic_rank is not None and self.n_features is not None:
            raise ValueError(
                f"critic_rank={self.critic_rank}: rewards of this environment are factored already, and the critic has one "
                f"value for each of {self.n_features} reward features; leave critic_rank out"
            )
        if self.rollout_buffer_class is None:
            is_dict = isinstance(self.observation_space, spaces.Dict)
            self.rollout_buffer_class = VectorRewardDictRolloutBuffer if is_dict else VectorRewardRolloutBuffer
        # Sizes of the r-MDP reach policy and buffer without entering the user's own kwargs, which `load` compares and saves
        policy_kwargs, buffer_kwargs = self.policy_kwargs, self.rollout_buffer_kwargs
        sizes: dict[str, Any] = {"k": self.k, "n_rewards": self.reward_weights.size}
        own = {"critic_rank": self.critic_rank, "normalize_observations": self.normalize_observations}
        self.policy_kwargs = {**policy_kwargs, **sizes, **own}
        self.rollout_buffer_kwargs = {**buffer_kwargs, **sizes, "n_values": self.critic_rank}
        try:
            super()._setup_model()
        except (AssertionError, TypeError, RuntimeError, OverflowError) as error:
            # Libraries say it with names of their own
            raise refusal("policy", policy_name(self), f"with policy_kwargs={shown(policy_kwargs)} {_said(error)}") from error
        except MemoryError as error:
            raise refusal("n_steps", self.n_steps, f"there is no memory for so many transitions: {_said(error)}") from error
        finally:
            self.policy_kwargs, self.rollout_buffer_kwargs = policy_kwargs, buffer_kwargs
        self.assignment = make_assignment(self.assignment_method, self.n_agents, self.k, self.seed, self.assignment_kwargs).to(
            self.device
        )
        self.assignment.connect(self.reward_weights, self.value_weights)
        self.welfare = make_welfare(self.welfare_method, self.n_agents, self.welfare_kwargs)
        # On the device, where SB3 puts what it loads
        self._mean_returns = th.empty(0, device=self.device)

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        super()._update_current_progress_remaining(num_timesteps, total_timesteps)
        # The last rollout may end beyond the end of the training, where schedules would have learning rates below 0
        self._current_progress_remaining = max(0.0, self._current_progress_remaining)

    def _check_env(self, env: VecEnv) -> None:
        """Take over the environment's population, or compare it with the one that the model was made for."""
        check_no_reward_normalization(env)
        population = population_of(env)
        if not self.n_agents:
            self.n_agents, self.population_id, self.n_features = population
        check_same_population(self.population, population)
        self.reward_weights = agent_weights_of(env, self.n_agents, self.device)
        self._balanced = self.reward_weights.balanced()

    @property
    def population(self) -> Population:
        """The agents that the model was made for."""
        return Population(self.n_agents, self.population_id, self.n_features)

    def set_env(self, env: GymEnv | str, force_reset: bool = True) -> None:
        """
        See SB3; an id, or an environment that can be made again, becomes k copies.

        :param env: as for the constructor; as many environments as before
        :param force_reset: reset before training goes on
        :raises ValueError: if the environment has other agents or spaces
        """
        vec_env = self._wrap_env(represented_vec_env(env, self.k, self.verbose), self.verbose)
        self._check_env(vec_env)
        self.assignment.connect(self.reward_weights, self.value_weights)
        super().set_env(vec_env, force_reset)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        if self.env is None:
            raise ValueError("there is no environment to learn in: pass one to load(path, env=...) or to set_env(env)")
        if self._left_out:
            raise ValueError(cannot_learn(list(self._left_out)))
        check_critic_rank(self.critic_rank, self.assignment_method)
        self.check_vec_normalize(self.env)
        self.trained_under_vec_normalize = normalizes_observations(self.env)
        # A loaded model has no tracker: where episodes go on, they do so in its first rollout. Episodes in which somebody else
        # has made steps do not go on
        if not self._episodes_go_on(self.env) or reset_num_timesteps:
            self._begin_episodes(go_on=not reset_num_timesteps)
        check_parameters(self.policy)
        observations = ObservationCheck(self.env)
        observations.before()
        result = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        try:
            observations.check(self._last_obs, self.num_timesteps)
        except ValueError:
            self._last_obs = None
            raise
        return result

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        assert self.env is not None and self._watch is not None
        # Episodes begin, or go on; whoever moves the environments from now on, callbacks included, is somebody else
        self._watch.note()
        check_evaluations_apart(callback, self.env)
        score_as_usual(callback, self.env)
        initialized = super()._init_callback(callback, progress_bar)
        score_by_welfare(initialized, self.k, self.verbose)
        return initialized

    def check_vec_normalize(self, env: VecEnv) -> None:
        """
        :param env: an environment that the model is to act in
        :raises ValueError: if the model was trained under a VecNormalize of observations and this is none, or the reverse
        """
        check_same_normalization(self.trained_under_vec_normalize, env)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        representative: int | np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Action of a representative; see :meth:`RepresentedActorCriticPolicy.predict`.

        :param observation: one observation or a batch of them, one per env
        :param state: as returned by the last call, where representatives take turns
        :param episode_start: True where an episode begins, (n_envs,)
        :param deterministic: take the mode instead of a sample
        :param representative: who acts; by default representatives take turns per env and episode
        :return: actions, and the state to hand to the next call
        """
        actions, state = self.policy.predict(observation, state, episode_start, deterministic, representative)
        if representative is None and actions.ndim > len(self.action_space.shape or ()):
            assert state is not None
            # Whoever steps a vec env in turns may want to know whose turn it was: see WelfareVecEnv
            actions = RepresentedActions.tag(actions, state[0], self.assignment)
        return actions, state

    def representative(self, index: int) -> Representative:
        """
        :param index: which one, 0 to k - 1
        :return: an object with ``predict``, for ``evaluate_policy`` and for service
        """
        return Representative(self, index, self.k)

    def representative_of(self, agent: int) -> int:
        """
        :param agent: 0 to n_agents - 1
        :return: the representative that serves the agent
        :raises ValueError: if there is no such agent
        """
        check_agent(agent, self.n_agents)
        return int(self.assignment.representatives[agent])

    def assign(
        self,
        users: Users,
        episodes: EvaluationEpisodes | str | Path,
        confidence: float = 0.95,
        best_possible: ArrayLike | None = None,
        vectorized: bool = False,
    ) -> NewUsers:
        """
        The best representative of users who were not in training; see :func:`sb3_rmdp.service.assign`.

        :param users: their weights, reward functions, or scores
        :param episodes: of this model, from :func:`sb3_rmdp.service.record_episodes`, or their file
        :param confidence: level of intervals and of choices
        :param best_possible: best possible return, if it is known
        :param vectorized: reward functions take all steps of an episode at once
        :return: who serves them, and how well
        """
        from sb3_rmdp.service import assign  # late: it needs the algorithm

        return assign(self, users, episodes, confidence, best_possible, vectorized)


def _said(error: BaseException) -> str:
    return f"fails: {type(error).__name__}: {' '.join(str(error).split())}"


def check_critic_rank(critic_rank: int | None, assignment: str | type[Assignment]) -> None:
    """
    :param critic_rank: of a model
    :param assignment: name or class of its assignment
    :raises ValueError: if the assignment learns from advantages of every agent, which a critic of few values does not know
    """
    if critic_rank is not None and assignment_class(assignment).needs_agent_advantages:
        raise ValueError(
            f"critic_rank={critic_rank} with assignment={assignment!r}: it learns by gradient from the advantages of every "
            "agent, and would see only what few values say of them; leave critic_rank out, or choose 'em' or 'episodes'"
        )
