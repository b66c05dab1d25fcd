"""Proximal policy optimisation of k representatives."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule

from sb3_rmdp.common.assignment import DEFAULT_ASSIGNMENT, Assignment
from sb3_rmdp.common.finite import check_parameters, unchanged_by_failure
from sb3_rmdp.common.finite_updates import UNCHANGED, check_rollout, check_update
from sb3_rmdp.common.imitation import Imitation
from sb3_rmdp.common.model_arguments import OVER_ROLLOUT, check_learn_arguments, check_schedule
from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm
from sb3_rmdp.common.random_numbers import training
from sb3_rmdp.represented_ppo.autograd_gradients import AutogradGradients
from sb3_rmdp.represented_ppo.manual_gradients import ManualGradients
from sb3_rmdp.represented_ppo.policies import CnnPolicy, MlpPolicy, MultiInputPolicy

SelfRepresentedPPO = TypeVar("SelfRepresentedPPO", bound="RepresentedPPO")


class RepresentedPPO(RepresentedOnPolicyAlgorithm, PPO):
    """
    PPO for represented MDPs: k policies for n agents, and who is served by whom.

    Paper: Ivanov and Ben-Porat, "Personalized Reinforcement Learning with a Budget of Policies", AAAI 2024. All arguments
    of SB3's PPO keep their meaning, but counts are per representative: ``n_steps`` counts transitions per environment, of
    which there are k by default, one per representative; ``batch_size`` counts transitions of every representative in a
    minibatch. With k = n_agents = 1 and ``normalize_observations=False`` this is PPO, step by step, but for one thing: the
    actors' and the critic's gradient are clipped apart, so that errors of n values do not shorten the actors' steps.

    The losses of representatives are added up, and either gradient is clipped to ``max_grad_norm * sqrt(k)``, which is what
    k gradients of that length in independent directions add up to.

    :param policy: "MlpPolicy", "CnnPolicy", "MultiInputPolicy", or a class
    :param env: a gymnasium id or an environment that can be made again, of which k copies are made; any other environment,
        in which representatives take turns; or a vec env, used as it is
    :param learning_rate: as in PPO
    :param n_steps: transitions per environment and rollout
    :param batch_size: transitions per representative and minibatch
    :param n_epochs: as in PPO, like all arguments up to ``_init_setup_model``
    :param gamma:
    :param gae_lambda:
    :param clip_range:
    :param clip_range_vf:
    :param normalize_advantage: per representative, and per minibatch as in PPO (True), or over all transitions of the rollout
        ("rollout", appendix B), which leaves what happens seldom in proportion to all the rest; False: not at all. Anything
        else raises a ``ValueError``
    :param ent_coef: a number, or a schedule as for the learning rate; anything else raises a ``ValueError``
    :param vf_coef: weight of the critic's loss, the mean over agents of their squared errors (eq. 8)
    :param max_grad_norm:
    :param use_sde:
    :param sde_sample_freq:
    :param rollout_buffer_class:
    :param rollout_buffer_kwargs:
    :param target_kl: bound on the largest divergence among the representatives
    :param stats_window_size:
    :param tensorboard_log:
    :param policy_kwargs:
    :param verbose:
    :param seed:
    :param device:
    :param _init_setup_model:
    :param k: number of representatives, 1 <= k <= n_agents
    :param assignment: "episodes", "em", "end_to_end", "fixed", "random", "clustering", a subclass of ``Assignment``,
        or ``module:Class`` for one that can be imported
    :param assignment_kwargs: arguments of the assignment
    :param welfare: what policies ascend together: "utilitarian", the mean over agents; "nash", "egalitarian", "alpha_fair" or
        "gini", see :mod:`sb3_rmdp.common.welfare`
    :param welfare_kwargs: arguments of the welfare, among them ``outside_options`` and ``minimum``
    :param normalize_observations: normalise observations by running moments, inside the policy (appendix B)
    :param critic_rank: number of the critic's values, from 1 to n_agents, of which those of the agents are mixtures; by
        default one per agent, or per reward feature where rewards are factored. Saves time with many agents, see
        "Performance and scale"; actors ascend the exact rewards in any case. Not with ``assignment="end_to_end"``
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 2048,
        batch_size: int = 64,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool | str = True,
        ent_coef: float | Schedule = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        target_kl: float | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
        k: int | None = None,
        assignment: str | type[Assignment] = DEFAULT_ASSIGNMENT,
        assignment_kwargs: dict[str, Any] | None = None,
        welfare: str = "utilitarian",
        welfare_kwargs: dict[str, Any] | None = None,
        normalize_observations: bool = True,
        critic_rank: int | None = None,
    ):
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=batch_size,
            n_epochs=n_epochs,
            gamma=gamma,
            gae_lambda=gae_lambda,
            clip_range=clip_range,
            clip_range_vf=clip_range_vf,
            normalize_advantage=normalize_advantage,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            rollout_buffer_class=rollout_buffer_class,
            rollout_buffer_kwargs=rollout_buffer_kwargs,
            target_kl=target_kl,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
            k=k,
            assignment=assignment,
            assignment_kwargs=assignment_kwargs,
            welfare=welfare,
            welfare_kwargs=welfare_kwargs,
            normalize_observations=normalize_observations,
            critic_rank=critic_rank,
        )

    def learn(
        self: SelfRepresentedPPO,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "RepresentedPPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfRepresentedPPO:
        """
        See SB3.

        :param total_timesteps: transitions of all representatives together
        :param callback: called at every step
        :param log_interval: rollouts between two lines of the log
        :param tb_log_name: name of the run in TensorBoard
        :param reset_num_timesteps: False to continue
        :param progress_bar: show one
        :return: the model
        :raises ValueError: if an argument is not allowed
        """
        given = dict(total_timesteps=total_timesteps, callback=callback, log_interval=log_interval, tb_log_name=tb_log_name)
        given |= dict(reset_num_timesteps=reset_num_timesteps, progress_bar=progress_bar)
        with training():
            return super().learn(**check_learn_arguments(given))

    def train(self) -> None:
        """
        Update policies, critic and, if it learns by gradient, the assignment, on the collected rollout.

        SB3's ``PPO.train`` with these differences: a minibatch holds k blocks, losses are means over a block and summed
        over blocks; the critic's loss is a mean over agents; actors and critic are clipped apart; ``target_kl`` looks at
        the worst representative; nothing is read back from the device within the loop but what ``target_kl`` needs.
        """
        self.policy.set_training_mode(True)
        self._now("learning_rate", self.lr_schedule)
        self._update_learning_rate(self.policy.optimizer)
        clip_range, ent_coef = self._now("clip_range", self.clip_range), self._now("ent_coef", self.ent_coef)
        clip_range_vf = None if self.clip_range_vf is None else self._now("clip_range_vf", self.clip_range_vf)
        with np.errstate(over="ignore", invalid="ignore"):
            explained_variance = self.rollout_buffer.compute_marginal_advantages(*self._group_weights())
        check_rollout(self.rollout_buffer, self.policy)
        if self.normalize_advantage == OVER_ROLLOUT:
            self.rollout_buffer.normalize_advantages()
        max_grad_norm = self.max_grad_norm * self.k**0.5

        # First, while parameters are where they belong: lessons may come from a method that is not ours, and be wrong
        imitation = Imitation(self.policy, self.assignment.lessons(), self.batch_size)
        own = self.assignment.optimizer
        with unchanged_by_failure(self.policy, [self.policy.optimizer, *([] if own is None else [own])]):
            gradients = (ManualGradients if ManualGradients.fits(self) else AutogradGradients)(self, clip_range, ent_coef)
            try:
                self._take_steps(gradients, max_grad_norm, imitation)
            except (ValueError, RuntimeError):
                # PyTorch's distributions refuse what became of parameters in other words
                check_update(gradients.logs(), gradients.norms(), self.rollout_buffer)
                check_parameters(self.policy, UNCHANGED)
                raise
            finally:
                gradients.finish()
            losses = check_update(gradients.logs(), gradients.norms(), self.rollout_buffer)
            imitation.finish()
            check_parameters(self.policy, UNCHANGED)
        # Whoever predicts from now on need not switch modes
        self.policy.set_training_mode(False)
        if self.policy.normalizer is not None:
            # Only now: the ratios of an update need the moments under which its actions were taken
            self.policy.normalizer.update(self.rollout_buffer.observations)

        for name, value in losses.items():
            self.logger.record(f"train/{name}", value)
        self.logger.record("train/explained_variance", explained_variance)
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", th.exp(self.policy.log_std).mean().item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/clip_range", clip_range)
        if callable(self.ent_coef):
            self.logger.record("train/ent_coef", ent_coef)
        if clip_range_vf is not None:
            self.logger.record("train/clip_range_vf", clip_range_vf)

    def _now(self, name: str, value: float | Schedule) -> float:
        """What an argument that may be a schedule is in this update."""
        return check_schedule(name, value, self._current_progress_remaining)

    @property
    def normalizes_minibatches(self) -> bool:
        """Whether advantages are normalised minibatch by minibatch."""
        return bool(self.normalize_advantage) and self.normalize_advantage != OVER_ROLLOUT

    def _group_weights(self) -> tuple[np.ndarray, np.ndarray | None]:
        """
        What counts for the agents of each representative, under the assignment that there is now.

        :return: the critic's values (n_values, k), and what these leave out of the rewards (n_rewards, k), ``None`` if nothing
        """
        alpha = self.assignment.weighted_alpha.detach()
        of_values = self.value_weights.of_groups(alpha)
        if self.policy.critic_basis is None:
            return of_values.cpu().numpy(), None
        left_out = alpha - self.policy.critic_basis.project_back(of_values)
        return of_values.cpu().numpy(), left_out.cpu().numpy()

    def _take_steps(self, gradients: ManualGradients | AutogradGradients, max_grad_norm: float, imitation: Imitation) -> None:
        """
        All epochs, or fewer if ``target_kl`` strikes.

        :param gradients: where gradients come from
        :param max_grad_norm: bound of their norm
        :param imitation: what representatives learn from episodes beside it
        """
        for epoch in range(self.n_epochs):
            self._n_updates += 1
            for _ in gradients.epoch():
                if self.target_kl is not None:
                    approx_kl = gradients.approx_kl()
                    if not approx_kl.max().item() <= 1.5 * self.target_kl:
                        if self.verbose >= 1:
                            worst = f"representative {int(approx_kl.argmax())} moved by {approx_kl.max():.3f}"
                            print(f"Early stopping at step {epoch}: {worst} > max kl")
                        return
                gradients.step(max_grad_norm)
                if self.assignment.optimizer is not None:
                    self.assignment.optimizer.step()
                imitation.after_minibatch()
