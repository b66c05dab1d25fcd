"""Collection of rollouts: who acts where, reward vectors, and what the assignment is told of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp.common.actor import numpy_actor
from sb3_rmdp.common.agent_weights import AgentWeights
from sb3_rmdp.common.buffers import VectorRewardRolloutBuffer
from sb3_rmdp.common.finite import ObservationCheck, check_parameters, is_finite, policy_error
from sb3_rmdp.common.full_disk import call_despite_the_disk
from sb3_rmdp.common.plain_case import has_hooks, overrides
from sb3_rmdp.common.policies import RepresentedActorCriticPolicy
from sb3_rmdp.common.population import reward_key, reward_vectors
from sb3_rmdp.common.reassignment import reassign
from sb3_rmdp.common.returns import ReturnTracker
from sb3_rmdp.common.run_state import ResumableRun
from sb3_rmdp.common.trajectories import TrajectoryRecorder
from sb3_rmdp.common.turns import first_representatives, next_representatives
from sb3_rmdp.vec_env import BatchInfos
from sb3_rmdp.vec_env.episodes import UnseenEnds
from sb3_rmdp.vec_env.watch import EnvWatch


class RolloutCollection(ResumableRun):
    """The part of a represented algorithm that acts: from the environments to a full buffer and a reassignment."""

    k: int
    n_agents: int
    #: Agents' weights of the rewards as they come, and in units in which the critic learns all of them alike
    reward_weights: AgentWeights
    _balanced: AgentWeights
    #: Who moves the environments, of this process alone
    _watch: EnvWatch | None = None

    @property
    def value_weights(self) -> AgentWeights:
        """How agents' values come from the critic's outputs."""
        basis = self.policy.critic_basis
        return self._balanced if basis is None else AgentWeights(self.n_agents, basis.weights)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_watch"]

    def _episodes_go_on(self, env: VecEnv) -> bool:
        """
        :param env: the environment of the training
        :return: whether its episodes are where the last rollout left them; it is watched from now on
        """
        undisturbed = self._is_undisturbed(env)
        if self._watch is None or not self._watch.is_of(env):
            self._watch = EnvWatch(env)
        return undisturbed and self._last_obs is not None and self._return_tracker is not None

    def _is_undisturbed(self, env: VecEnv) -> bool:
        watch = self._watch
        return watch is None or (watch.is_of(env) and not watch.touched())

    def _begin_episodes(self, go_on: bool) -> None:
        """
        Abandon running episodes.

        :param go_on: keep whose turn it is, without which those who are last would never act in a training that is
            interrupted again and again, and what was last seen of representatives
        """
        self._last_obs = None
        if not go_on or self._acting is None or len(self._acting) != self.n_envs:
            self._acting = first_representatives(self.n_envs, self.k)
        known = self._mean_returns.cpu() if go_on and self._mean_returns.numel() else None
        self._return_tracker = ReturnTracker(self.n_envs, self.reward_weights.size, self.k, known)
        self._mean_returns = self._return_tracker.means
        assert self.env is not None
        self._unseen_ends = UnseenEnds(self.env)
        needed, copied = self.assignment.needs_trajectories, self.assignment.copies_rewards
        self._recorder = TrajectoryRecorder(self.n_envs, copies_rewards=copied) if needed else None

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """
        Collect transitions, run the critic over them, turn rewards into returns, and let the assignment reassign.

        A training that goes on takes up here where it was broken off, see :mod:`sb3_rmdp.common.run_state`.

        The loop is that of SB3's ``OnPolicyAlgorithm``, from which it differs in four points: reward vectors are taken
        from the infos; representatives act in turn; values and log probabilities are not computed per step but in one pass
        at the end, values also of states in which a time limit struck, under the representative that acted there; returns
        of episodes go to the assignment.

        :param env: the training environment
        :param callback: called at each step, with the local names of SB3's loop
        :param rollout_buffer: buffer to fill
        :param n_rollout_steps: steps per environment
        :return: False if the callback ended the training
        """
        assert isinstance(rollout_buffer, VectorRewardRolloutBuffer)
        assert self._watch is not None
        self._watch.check()
        self._begin_rollout(callback)
        self._watch.note()  # it may have reset the environments
        assert self._last_obs is not None and self._acting is not None and self._return_tracker is not None
        assert self._unseen_ends is not None
        self.policy.set_training_mode(False)
        n_steps = 0
        rollout_buffer.reset()
        timeouts: list[tuple[int, int, int, Any]] = []  # step, env, representative, terminal observation
        returns: list[np.ndarray] = []  # of episodes whose trajectories are told
        size, key = self.reward_weights.size, reward_key(self.reward_weights)
        if self.use_sde:
            self.policy.reset_noise(env.num_envs)
        callback.on_rollout_start()
        # Only now: a callback may have changed the policy
        act = numpy_actor(self.policy) or self._torch_actor
        observations = ObservationCheck(env)

        while n_steps < n_rollout_steps:
            if self.use_sde and self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0:
                self.policy.reset_noise(env.num_envs)
            actions = act(self._last_obs, self._acting)  # type: ignore[arg-type]
            if not is_finite(actions):
                raise policy_error(self.policy, actions, self._acting)
            clipped_actions = actions
            if isinstance(self.action_space, spaces.Box):
                if self.policy.squash_output:
                    clipped_actions = self.policy.unscale_action(clipped_actions)
                else:
                    clipped_actions = actions.clip(self.action_space.low, self.action_space.high)

            self._watch.check()
            observations.before()
            new_obs, rewards, dones, infos = env.step(clipped_actions)
            moved = self._watch.counts()
            self._unseen_ends.add(rewards, dones, infos)
            observations.check(new_obs, self.num_timesteps + env.num_envs, dones, infos)
            vectors = reward_vectors(infos, size, key)
            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            if not call_despite_the_disk(callback):
                # Nothing of the last step was taken down: this model goes on with new episodes. One that is loaded from its
                # file plays the rollout again
                self._last_obs = None
                return False
            self._update_info_buffer(infos, dones)
            rollout_buffer.add(self._last_obs, actions, vectors, self._last_episode_starts, self._acting)  # type: ignore[arg-type]

            self._return_tracker.add(vectors)
            if dones.any():
                for idx in np.flatnonzero(dones):
                    terminal_obs = infos[idx].get("terminal_observation")
                    if terminal_obs is not None and infos[idx].get("TimeLimit.truncated", False):
                        timeouts.append((n_steps, int(idx), int(self._acting[idx]), terminal_obs))
                finished = self._told(self._return_tracker.finish(dones, self._acting))
                self.assignment.record_episodes(self._acting[dones], finished)
                if self._recorder is not None:
                    returns.extend(finished.copy())
                self._acting = np.where(dones, next_representatives(self._acting, env.num_envs, self.k), self._acting)
            n_steps += 1
            self._last_obs = new_obs  # type: ignore[assignment]
            self._last_episode_starts = dones
            self._watch.note(moved)

        if self._recorder is not None:
            buffer = rollout_buffer
            arrays = (buffer.observations, buffer.actions, buffer.reward_vectors, buffer.episode_starts)
            trajectories = self._recorder.cut(*arrays, dones, {(step, env_idx) for step, env_idx, *_ in timeouts})
            kept = [(seen, paid) for seen, paid in zip(trajectories, returns, strict=True) if seen is not None]
            self.assignment.record_trajectories([seen for seen, _ in kept], [paid for _, paid in kept])
        self.assignment.record_rewards(rollout_buffer.representatives, self._told(rollout_buffer.reward_vectors))
        self._evaluate(rollout_buffer, timeouts)
        last_values = self._values(new_obs, self._acting)  # type: ignore[arg-type]
        with np.errstate(over="ignore", invalid="ignore"):
            # Told by check_rollout, with names
            rollout_buffer.compute_returns_and_advantage(last_values, dones)
        progress = self.num_timesteps / self._total_timesteps
        for name, value in reassign(self.assignment, self._return_tracker, progress, self.welfare).items():
            self.logger.record(name, value)
        callback.update_locals(locals())
        callback.on_rollout_end()
        self._end_rollout()
        return True

    def _update_info_buffer(self, infos: Sequence[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        if isinstance(infos, BatchInfos) and dones is not None:
            # Infos that are passed over are as the environment would make them, and tell of no end of an episode
            looked_at = infos.looked_at(np.flatnonzero(dones))
            if not looked_at:
                return
            infos, dones = [infos[idx] for idx in looked_at], dones[looked_at]
        super()._update_info_buffer(list(infos), dones)

    def _torch_actor(self, obs: np.ndarray | dict[str, np.ndarray], representatives: np.ndarray) -> np.ndarray:
        policy, observations = self.policy, obs_as_tensor(obs, self.device)
        acting = th.as_tensor(representatives, device=self.device)
        try:
            with th.no_grad():
                # SB3's loop calls the policy, so whoever changes that means what is done here
                if overrides(policy, RepresentedActorCriticPolicy, "forward") or has_hooks(policy):
                    return policy(observations, representatives=acting)[0].cpu().numpy()
                return policy.act(observations, acting).cpu().numpy()
        except (ValueError, RuntimeError):
            # PyTorch's distributions refuse such numbers in other words
            check_parameters(policy)
            raise

    def _values(self, obs: np.ndarray | dict[str, np.ndarray], representatives: np.ndarray) -> th.Tensor:
        """Values (batch, n_values) of observations under representatives (batch,)."""
        with th.no_grad():
            acting = th.as_tensor(representatives, device=self.device)
            return self.policy.predict_values(obs_as_tensor(obs, self.device), acting)

    def _told(self, rewards: np.ndarray) -> np.ndarray:
        """What the assignment is told of rewards (..., size): those of every agent, if it takes no features."""
        if self.assignment.takes_features or not self.reward_weights.factored:
            return rewards
        flat = th.as_tensor(rewards.reshape(-1, rewards.shape[-1]), device=self.device)
        return self.reward_weights.of_agents(flat.t()).t().cpu().numpy().reshape(*rewards.shape[:-1], self.n_agents)

    def _evaluate(self, rollout_buffer: VectorRewardRolloutBuffer, timeouts: list[tuple[int, int, int, Any]]) -> None:
        """One pass of the networks over a rollout, and of the critic over the states in which time limits struck."""
        basis, units = self.policy.critic_basis, self.value_weights.units
        self.policy.fit_critic_basis(rollout_buffer.reward_vectors.reshape(-1, rollout_buffer.n_rewards))
        for chunk in rollout_buffer.chunks():
            if basis is not None:
                rewards = th.as_tensor(chunk.reward_vectors, device=self.device)
                chunk.returns[:] = basis.project(rewards).cpu().numpy()
            elif units is not None:
                np.multiply(chunk.returns, units.cpu().numpy(), out=chunk.returns)
            actions = chunk.actions.long().flatten() if isinstance(self.action_space, spaces.Discrete) else chunk.actions
            with th.no_grad():
                values, log_probs, _ = self.policy.evaluate_actions(chunk.observations, actions, chunk.representatives)
            chunk.values[:] = values.cpu().numpy()
            chunk.log_probs[:] = log_probs.cpu().numpy()
        if timeouts:
            steps, envs, acted, observations = map(list, zip(*timeouts, strict=True))
            stacked = (
                {key: np.stack([obs[key] for obs in observations]) for key in observations[0]}
                if isinstance(observations[0], dict)
                else np.stack(observations)
            )
            rollout_buffer.bootstrap(steps, envs, self._values(stacked, np.array(acted)).cpu().numpy())
