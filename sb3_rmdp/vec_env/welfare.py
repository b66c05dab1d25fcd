"""Social welfare as the reward of evaluations: what SB3's own evaluation, and all that is built on it, then reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_rmdp.envs.contract import REWARD_FEATURES, REWARD_VECTOR
from sb3_rmdp.vec_env.episodes import EpisodeLengths, UnseenEnds
from sb3_rmdp.vec_env.infos import BatchInfos

if TYPE_CHECKING:
    from sb3_rmdp.common.assignment import Assignment


class RepresentedActions(np.ndarray):
    """
    A batch of actions that knows which representatives took them, and whom these serve.

    Only the array itself knows: what is computed from it, or pickled, is a plain array.

    :ivar representatives: who acts in each environment, (n_envs,)
    :ivar assignment: assignment of the model
    """

    representatives: np.ndarray | None
    assignment: Assignment | None

    @classmethod
    def tag(cls, actions: np.ndarray, representatives: np.ndarray, assignment: Assignment) -> RepresentedActions:
        """
        :param actions: (n_envs, *action shape)
        :param representatives: (n_envs,)
        :param assignment: assignment of the model
        :return: the same actions
        """
        tagged = actions.view(cls)
        tagged.representatives = representatives
        tagged.assignment = assignment
        return tagged

    def __array_finalize__(self, array: Any) -> None:
        self.representatives = None
        self.assignment = None

    def __array_wrap__(self, array: np.ndarray, context: Any = None, return_scalar: bool = False) -> Any:
        plain = np.asarray(array)
        return plain[()] if return_scalar else plain

    def __reduce__(self) -> Any:
        return np.asarray(self).__reduce__()


class WelfareVecEnv(VecEnvWrapper):
    """
    Rewards of a represented model's actions are what the representative that took them adds to social welfare, times k.

    In place of the mean over all agents, which says nothing of who is served by whom, an environment in which j acts pays
    ``k / n_agents`` times the sum of the rewards of the agents that j serves. The mean return over whole cycles of
    representatives, k episodes or a multiple of that, is then social welfare (eq. 2 divided by n).
    ``info["episode"]["r"]`` of a Monitor below is replaced as well, and the entry is written where a time limit above the
    Monitor has ended an episode, which SB3's evaluations would not count.

    Representatives must take turns, as they do in ``model.predict(obs, state, episode_start)``; rewards of all other actions
    pass unchanged, so that the wrapper does no harm to a training environment. An episode of representatives that does not end
    raises an error in the end, see :class:`EpisodeLengths`.

    :param venv: a vec env of represented environments
    """

    def __init__(self, venv: VecEnv):
        super().__init__(venv)
        self._returns = np.zeros(venv.num_envs)
        self._acting: np.ndarray | None = None
        self._weights: np.ndarray | None = None
        self._key = REWARD_VECTOR
        self._begin()

    def _begin(self) -> None:
        self._lengths, self._unseen_ends = EpisodeLengths(self.venv), UnseenEnds(self.venv)

    def reset(self) -> VecEnvObs:
        """See SB3; the assignment is looked at again, since the model may have learned in between."""
        self._returns[:] = 0.0
        self._weights = None
        self._begin()
        return self.venv.reset()

    def get_state(self) -> dict[str, Any]:
        """
        :return: what the wrapper remembers of running episodes
        """
        return {"returns": self._returns.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """
        :param state: from :meth:`get_state`
        """
        self._returns[:] = state["returns"]

    def step_async(self, actions: np.ndarray) -> None:
        """See SB3."""
        self._acting = None
        if isinstance(actions, RepresentedActions) and actions.assignment is not None:
            self._acting = actions.representatives
            if self._weights is None:
                self._weigh(actions.assignment)
            actions = np.asarray(actions)
        self.venv.step_async(actions)

    def _weigh(self, assignment: Assignment) -> None:
        """Find out what each reward, of an agent or of a feature, counts where a representative acts."""
        # Under an assignment by probabilities the own representative is the likeliest, as in evaluate_welfare
        served = assignment.representatives == np.arange(assignment.k)[:, None]
        weights = self.venv.get_attr("reward_weights", indices=[0])[0] if self.venv.has_attr("reward_weights") else None
        self._key = REWARD_VECTOR if weights is None else REWARD_FEATURES
        # Weights of a million agents are large in double precision
        counts = served if weights is None else served.astype(np.float32) @ weights
        self._weights = counts * (assignment.k / assignment.n_agents)

    def step_wait(self) -> VecEnvStepReturn:
        """See SB3."""
        obs, rewards, dones, infos = self.venv.step_wait()
        self._unseen_ends.add(rewards, dones, infos)
        if self._acting is None:
            return obs, rewards, dones, infos
        assert self._weights is not None
        self._lengths.add(dones)
        batch = infos.reward_vectors if isinstance(infos, BatchInfos) and infos.key == self._key else None
        vectors = [info[self._key] for info in infos] if batch is None else batch
        shares = np.array([self._weights[j] @ vector for j, vector in zip(self._acting, vectors, strict=True)])
        self._returns += shares
        for idx in np.flatnonzero(dones):
            if "episode" in infos[idx]:
                infos[idx]["episode"]["r"] = float(self._returns[idx])
                self._returns[idx] = 0.0
        return obs, shares, dones, infos


def insert_welfare(env: VecEnv) -> VecEnv:
    """
    Put a :class:`WelfareVecEnv` below all wrappers of a vec env, where it is in nobody's way.

    SB3 copies statistics of VecNormalize from the training to the evaluation environment wrapper by wrapper, beginning at
    the top, so that another one there would be taken for a difference between them.

    :param env: a vec env, wrapped or not
    :return: the same with the wrapper; it is ``env`` itself if that is a wrapper
    """
    if not isinstance(env, VecEnvWrapper):
        return WelfareVecEnv(env)
    wrapper = env
    while not isinstance(wrapper, WelfareVecEnv):
        if not isinstance(wrapper.venv, VecEnvWrapper):
            wrapper.venv = WelfareVecEnv(wrapper.venv)
        wrapper = wrapper.venv
    return env
