"""Actor-critic policies of k representatives: shared trunks, one actor head each, one critic for all agents."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution, StateDependentNoiseDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    MlpExtractor,
    NatureCNN,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn
from torch.nn import functional as F

from sb3_rmdp.common.critic_basis import CriticBasis, turn_outputs
from sb3_rmdp.common.finite import check_finite_observation
from sb3_rmdp.common.normalization import ObservationNormalizer
from sb3_rmdp.common.predict_input import (
    acting_representatives,
    batch_size,
    check_actions,
    check_batch,
    read_observation,
    turns_of,
)
from sb3_rmdp.common.serving import evaluating, own_distribution
from sb3_rmdp.common.turns import first_representatives, next_representatives


class RepresentedLinear(nn.Module):
    """
    One linear layer per representative.

    :param layers: the k layers it is made of, equal in shape
    """

    def __init__(self, layers: list[nn.Linear]):
        super().__init__()
        self.weight = nn.Parameter(th.stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(th.stack([layer.bias.detach() for layer in layers]))

    def forward(self, x: th.Tensor, representatives: th.Tensor | None = None) -> th.Tensor:
        """
        :param x: inputs (batch, in)
        :param representatives: whose layer is to be applied to each row, (batch,); ``None`` if the batch consists of k
            blocks of equal length, one per representative
        :return: outputs (batch, out)
        """
        if representatives is None:
            blocks = x.view(len(self.weight), -1, x.shape[-1])
            return th.baddbmm(self.bias[:, None], blocks, self.weight.transpose(1, 2)).flatten(0, 1)
        # All k outputs and a choice among them: less memory than k weight matrices chosen row by row
        outputs = F.linear(x, self.weight.flatten(0, 1), self.bias.flatten()).view(len(x), *self.bias.shape)
        return outputs[th.arange(len(x), device=x.device), representatives]


class ConditionedMlpExtractor(MlpExtractor):
    """
    SB3's trunks, where the first layer of the critic also sees the one-hot of the representative: its weights on the
    one-hot are a shift of the layer's output, which is how they are stored. There is none for k = 1.

    :param feature_dim: see SB3's ``MlpExtractor``, as the next three
    :param net_arch:
    :param activation_fn:
    :param device:
    :param k: number of representatives
    :raises ValueError: if k > 1 and the critic has no hidden layer: a one-hot could only add a constant to its values
    """

    def __init__(
        self,
        feature_dim: int,
        net_arch: list[int] | dict[str, list[int]],
        activation_fn: type[nn.Module],
        device: th.device | str,
        k: int,
    ):
        super().__init__(feature_dim, net_arch, activation_fn, device)
        self.shift: nn.Parameter | None = None
        if k > 1:
            if not len(self.value_net):
                raise ValueError(
                    f"net_arch={net_arch} leaves the critic without a hidden layer, but it is shared by {k} representatives "
                    "and must tell them apart: give it one, e.g. net_arch=dict(pi=[], vf=[64])"
                )
            first = self.value_net[0]
            assert isinstance(first, nn.Linear)
            self.shift = nn.Parameter(th.zeros(k, first.out_features))

    def forward_critic(self, features: th.Tensor, representatives: th.Tensor | None = None) -> th.Tensor:
        if self.shift is None:
            return self.value_net(features)
        first, *others = self.value_net
        if representatives is None:
            shift = self.shift.repeat_interleave(len(features) // len(self.shift), dim=0)
        else:
            shift = self.shift[representatives]
        x = first(features) + shift
        for layer in others:
            x = layer(x)
        return x


def check_networks(extractor: nn.Module, k: int) -> bool:
    """
    :param extractor: the networks of a policy, as ``_build_mlp_extractor`` makes them
    :param k: number of representatives
    :return: whether its critic takes representatives
    :raises ValueError: if networks of one's own lack something, or their critic cannot tell representatives apart where k > 1
    """
    name = type(extractor).__name__
    for attribute in ("latent_dim_pi", "latent_dim_vf", "policy_net", "value_net", "forward_actor", "forward_critic"):
        if not hasattr(extractor, attribute):
            raise ValueError(f"mlp_extractor={name} has no {attribute}: derive it from ConditionedMlpExtractor, or add it")
    try:
        inspect.signature(extractor.forward_critic).bind(None, None)  # type: ignore[arg-type]
    except TypeError:
        if k > 1:
            raise ValueError(
                f"mlp_extractor={name} has a forward_critic without representatives, but its critic is shared by {k} of them "
                "and must tell them apart: derive it from sb3_rmdp.common.policies.ConditionedMlpExtractor, or let "
                "forward_critic(features, representatives) take them, (batch,) or None for k blocks"
            ) from None
        return False
    return True


class RepresentedActorCriticPolicy(ActorCriticPolicy):
    """
    The policies of all representatives and the critic of all agents.

    The trunks are shared. Each representative has its own last layer of the actor and its own log standard deviation. The
    critic is conditioned on the representative (eq. 8) and has one output per agent, or per reward feature if rewards are
    factored; or ``critic_rank`` outputs, of which :class:`CriticBasis` makes the agents' values.

    Methods that evaluate a batch take ``representatives``: who acts in each row, int64 of shape (batch,), or ``None`` for a
    batch of k blocks of equal length, the first of representative 0 and so on, which is the layout of training batches.

    :param observation_space: as in SB3's ``ActorCriticPolicy``, like all arguments not listed here
    :param action_space:
    :param lr_schedule:
    :param k: number of representatives
    :param n_rewards: length of a reward vector: number of agents, or of reward features
    :param critic_rank: number of values, from 1 to n_rewards; ``None`` for one per entry of a reward vector
    :param normalize_observations: normalise continuous observations by their running moments
    :param net_arch: SB3's default, but NatureCNN gets ``dict(pi=[], vf=[64])``, since the critic needs a hidden layer
    """

    mlp_extractor: ConditionedMlpExtractor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        *args: Any,
        k: int = 1,
        n_rewards: int = 1,
        critic_rank: int | None = None,
        normalize_observations: bool = False,
        **kwargs: Any,
    ):
        self.k = k
        self.n_rewards = n_rewards
        self.critic_rank = critic_rank
        self.n_values = n_rewards if critic_rank is None else critic_rank
        self.normalize_observations = normalize_observations
        if kwargs.get("optimizer_class", th.optim.Adam) is th.optim.Adam:
            # SB3's epsilon; fused: one call instead of a dozen per parameter, most of an update's cost for small networks
            given = kwargs.get("optimizer_kwargs") or {}
            fused = {} if given.get("foreach") or given.get("differentiable") else {"fused": True}
            kwargs["optimizer_kwargs"] = {"eps": 1e-5, **fused, **given}
        super().__init__(observation_space, action_space, lr_schedule, *args, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.update(k=self.k, n_rewards=self.n_rewards, critic_rank=self.critic_rank)
        # SB3 leaves the second out, and a policy that was saved alone would come back with one extractor for both networks
        data.update(normalize_observations=self.normalize_observations, share_features_extractor=self.share_features_extractor)
        return data

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = ConditionedMlpExtractor(self.features_dim, self.net_arch, self.activation_fn, self.device, self.k)

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        self._tells_apart = check_networks(self.mlp_extractor, self.k)
        latent_dim_pi = self.mlp_extractor.latent_dim_pi
        assert isinstance(self.action_net, nn.Linear)
        # SB3's layer is representative 0; the others are drawn in the same way
        heads = [self.action_net]
        heads += [nn.Linear(latent_dim_pi, self.action_net.out_features) for _ in range(self.k - 1)]
        if self.ortho_init:
            for head in heads[1:]:
                self.init_weights(head, gain=0.01)
        self.action_net = RepresentedLinear(heads)
        if isinstance(self.action_dist, StateDependentNoiseDistribution):
            # The noise of gSDE is linear in the latent. Latents are put into the slot of their representative (see
            # _get_action_dist_from_latent), so that k exploration matrices are one for SB3's distribution.
            _, self.log_std = self.action_dist.proba_distribution_net(
                latent_dim_pi, latent_sde_dim=self.k * latent_dim_pi, log_std_init=self.log_std_init
            )
        elif hasattr(self, "log_std"):
            self.log_std = nn.Parameter(self.log_std.detach().repeat(self.k, 1))
        if self.n_values > 1:
            self.value_net = nn.Linear(self.mlp_extractor.latent_dim_vf, self.n_values)
            if self.ortho_init:
                self.init_weights(self.value_net, gain=1)
        self.critic_basis = None if self.critic_rank is None else CriticBasis(self.n_rewards, self.critic_rank)
        self.normalizer = ObservationNormalizer(self.observation_space) if self.normalize_observations else None
        # Layers were replaced: the optimizer has to know the new ones
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def actor_parameters(self) -> list[nn.Parameter]:
        """All parameters but :meth:`critic_parameters`."""
        critic = set(map(id, self.critic_parameters()))
        return [parameter for parameter in self.parameters() if id(parameter) not in critic]

    def critic_parameters(self) -> list[nn.Parameter]:
        """Parameters that only the values depend on; all others count as the actors'."""
        modules: list[nn.Module] = [self.mlp_extractor.value_net, self.value_net]
        if not self.share_features_extractor:
            modules.append(self.vf_features_extractor)
        shift = getattr(self.mlp_extractor, "shift", None)
        parameters = [parameter for module in modules for parameter in module.parameters()] + (
            [] if shift is None else [shift]
        )
        of_actors = [self.pi_features_extractor, self.mlp_extractor.policy_net, self.action_net]
        shared = {id(parameter) for module in of_actors for parameter in module.parameters()}
        # Each of them once: modules may share parameters
        return list({id(parameter): parameter for parameter in parameters if id(parameter) not in shared}.values())

    def fit_critic_basis(self, reward_vectors: np.ndarray) -> None:
        """
        Let a critic of few values follow what is paid; see :class:`CriticBasis`. One whose last layer is frozen stays.

        :param reward_vectors: rewards of a rollout, (transitions, n_rewards)
        :raises ValueError: if the critic's last layer is not linear, so that its outputs cannot be turned
        """
        if self.critic_basis is None:
            return
        layer = self.value_net
        parameters = (getattr(layer, name, None) for name in ("weight", "bias"))
        if type(layer).forward is not nn.Linear.forward or not all(isinstance(x, nn.Parameter) for x in parameters):
            raise ValueError(
                f"critic_rank={self.critic_rank} turns the outputs of policy.value_net, which must be a plain nn.Linear with "
                f"a bias, but is {type(layer).__name__}: leave critic_rank out, or the layer as it was"
            )
        assert isinstance(layer, nn.Linear)
        if layer.weight.requires_grad and layer.bias.requires_grad:
            turn_outputs(layer, self.optimizer, self.critic_basis.update(reward_vectors))

    def _values(self, features: th.Tensor, representatives: th.Tensor | None) -> th.Tensor:
        """Values (batch, n_values) for the critic's features."""
        forward = self.mlp_extractor.forward_critic
        return self.value_net(forward(features, representatives) if self._tells_apart else forward(features))

    def _features(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
        """Features for the actor and for the critic."""
        features = self.extract_features(obs if self.normalizer is None else self.normalizer(obs))
        return (features, features) if isinstance(features, th.Tensor) else features

    def _get_action_dist_from_latent(self, latent_pi: th.Tensor, representatives: th.Tensor | None = None) -> Distribution:
        mean_actions = self.action_net(latent_pi, representatives)
        distribution = own_distribution(self.action_dist)
        if not hasattr(self, "log_std"):
            return distribution.proba_distribution(action_logits=mean_actions)
        if representatives is None:
            representatives = th.arange(self.k, device=latent_pi.device).repeat_interleave(len(latent_pi) // self.k)
        if isinstance(distribution, StateDependentNoiseDistribution):
            slots = th.zeros(len(latent_pi), self.k, latent_pi.shape[1], device=latent_pi.device, dtype=latent_pi.dtype)
            slots[th.arange(len(latent_pi), device=latent_pi.device), representatives] = latent_pi
            return distribution.proba_distribution(mean_actions, self.log_std, slots.flatten(1))
        return distribution.proba_distribution(mean_actions, self.log_std[representatives])

    def get_distribution(self, obs: PyTorchObs, representatives: th.Tensor | None = None) -> Distribution:
        """
        :param obs: observations (batch, ...)
        :param representatives: see the class
        :return: distribution of their actions
        :raises ValueError: if ``obs`` or ``representatives`` have another type or shape, as for all methods that take them
        """
        check_batch(obs, self.observation_space, representatives, self.k)
        latent_pi = self.mlp_extractor.forward_actor(self._features(obs)[0])
        return self._get_action_dist_from_latent(latent_pi, representatives)

    def predict_values(self, obs: PyTorchObs, representatives: th.Tensor | None = None) -> th.Tensor:
        """
        :param obs: observations (batch, ...)
        :param representatives: see the class
        :return: values (batch, n_values), V^ij of eq. 8 for every agent i, or numbers that they are mixtures of
        """
        check_batch(obs, self.observation_space, representatives, self.k)
        return self._values(self._features(obs)[1], representatives)

    def act(self, obs: PyTorchObs, representatives: th.Tensor | None = None, deterministic: bool = False) -> th.Tensor:
        """
        Actions alone: neither values nor log probabilities are needed while transitions are collected.

        :param obs: observations (batch, ...)
        :param representatives: see the class
        :param deterministic: take the mode instead of a sample
        :return: actions (batch, *action shape)
        """
        actions = self.get_distribution(obs, representatives).get_actions(deterministic=deterministic)
        return actions.reshape((-1, *(self.action_space.shape or ())))

    def forward(
        self, obs: PyTorchObs, deterministic: bool = False, representatives: th.Tensor | None = None
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """
        :param obs: observations (batch, ...)
        :param deterministic: take the mode instead of a sample
        :param representatives: see the class
        :return: actions (batch, *action shape), values (batch, n_values), log probabilities (batch,)
        """
        actions = self.act(obs, representatives, deterministic)
        values, log_prob, _ = self.evaluate_actions(obs, actions, representatives)
        return actions, values, log_prob

    def evaluate_actions(
        self, obs: PyTorchObs, actions: th.Tensor, representatives: th.Tensor | None = None
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        """
        :param obs: observations (batch, ...)
        :param actions: actions that were taken
        :param representatives: see the class
        :return: values (batch, n_values), log probabilities (batch,) and entropies (batch,) of the actions' distribution
        """
        check_batch(obs, self.observation_space, representatives, self.k)
        pi_features, vf_features = self._features(obs)
        values = self._values(vf_features, representatives)
        latent_pi = self.mlp_extractor.forward_actor(pi_features)
        distribution = self._get_action_dist_from_latent(latent_pi, representatives)
        return values, distribution.log_prob(check_actions(actions, self.action_space, len(values))), distribution.entropy()

    def _predict(
        self, observation: PyTorchObs, deterministic: bool = False, representatives: th.Tensor | None = None
    ) -> th.Tensor:
        return self.act(observation, representatives, deterministic)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        representative: int | np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        The action for an observation, or for a batch of them, one per env. Threads may call it at the same time, also while
        another one trains: nothing is kept from one call to the next.

        :param observation: (*observation shape) or (n_envs, *observation shape)
        :param state: who acts now, as returned by the last call: a tuple of one int64 array (n_envs,)
        :param episode_start: True where an episode begins, (n_envs,)
        :param deterministic: take the mode instead of a sample
        :param representative: who acts, an int, or an array (n_envs,). By default representatives take turns per env and
            episode: within n episodes of ``evaluate_policy`` they are representatives 0, 1, ..., (n - 1) mod k
        :return: actions, and the state to hand to the next call
        :raises ValueError: if a representative is not in [0, k), an observation is not finite, or anything else has another
            type or shape
        """
        observation = read_observation(observation, self.observation_space)
        check_finite_observation(observation)
        obs_tensor, vectorized = self.obs_to_tensor(observation)
        n_envs = batch_size(obs_tensor) if vectorized else 1
        if representative is not None:
            acting = acting_representatives(representative, n_envs, self.k)
        elif state is None:
            # Counted from the last env, since evaluate_policy gives the last envs the episodes that do not divide evenly
            acting = first_representatives(n_envs, self.k)[::-1]
        else:
            acting, starts = turns_of(state, episode_start, n_envs, self.k)
            if starts is not None:
                acting = np.where(starts, next_representatives(acting, n_envs, self.k), acting)
        representatives = th.as_tensor(acting.copy(), dtype=th.int64, device=self.device)
        with th.no_grad():
            chosen = evaluating(self)._predict(obs_tensor, deterministic, representatives)
        actions = self._for_environment(chosen.cpu().numpy())
        return (actions if vectorized else actions.squeeze(axis=0)), (acting,)

    def _for_environment(self, actions: np.ndarray) -> np.ndarray:
        """Actions (batch, *action shape) within the bounds of their space."""
        actions = actions.reshape((-1, *(self.action_space.shape or ())))
        if not isinstance(self.action_space, spaces.Box):
            return actions
        if self.squash_output:
            return self.unscale_action(actions)
        return np.clip(actions, self.action_space.low, self.action_space.high)


class RepresentedActorCriticCnnPolicy(RepresentedActorCriticPolicy):
    """:class:`RepresentedActorCriticPolicy` on SB3's NatureCNN."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] = NatureCNN,
        **kwargs: Any,
    ):
        if net_arch is None and features_extractor_class is NatureCNN:
            net_arch = dict(pi=[], vf=[64])
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=net_arch,
            features_extractor_class=features_extractor_class,
            **kwargs,
        )


class RepresentedMultiInputActorCriticPolicy(RepresentedActorCriticPolicy):
    """:class:`RepresentedActorCriticPolicy` on SB3's CombinedExtractor, for ``Dict`` observations."""

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        features_extractor_class: type[BaseFeaturesExtractor] = CombinedExtractor,
        **kwargs: Any,
    ):
        super().__init__(
            observation_space, action_space, lr_schedule, features_extractor_class=features_extractor_class, **kwargs
        )
