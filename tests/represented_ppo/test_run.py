"""Training in all spaces, with any number of environments, and what is logged."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.assignment import ASSIGNMENTS
from sb3_rmdp.envs import ENV_IDS
from sb3_rmdp.represented_ppo.autograd_gradients import AutogradGradients
from sb3_rmdp.represented_ppo.manual_gradients import ManualGradients
from tests.probes import Drift, KnownAssignment, Spaces, time_limited, vectorized

SMALL: dict[str, Any] = dict(n_steps=16, batch_size=8, n_epochs=2, seed=0, device="cpu")
BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)
OBSERVATION_SPACES = {
    "box": BOX,
    "discrete": spaces.Discrete(5),
    "multi_discrete": spaces.MultiDiscrete([3, 2]),
    "multi_binary": spaces.MultiBinary(4),
    "image": spaces.Box(0, 255, (36, 36, 1), np.uint8),
    "dict": spaces.Dict({"x": BOX, "d": spaces.Discrete(3), "image": spaces.Box(0, 255, (36, 36, 1), np.uint8)}),
}
ACTION_SPACES = {
    "box": spaces.Box(-2.0, 1.0, (2,), np.float32),
    "discrete": spaces.Discrete(3),
    "multi_discrete": spaces.MultiDiscrete([3, 2]),
    "multi_binary": spaces.MultiBinary(3),
}


def policy_for(observation_space: spaces.Space) -> str:
    if isinstance(observation_space, spaces.Dict):
        return "MultiInputPolicy"
    return "CnnPolicy" if len(observation_space.shape or ()) == 3 else "MlpPolicy"


def run(observation_space: spaces.Space, action_space: spaces.Space, n_envs: int = 2, **kwargs: Any) -> RepresentedPPO:
    def make() -> gym.Env:
        return time_limited(Spaces(observation_space, action_space), 3)

    env = vectorized(make, n_envs)
    model = RepresentedPPO(policy_for(observation_space), env, k=2, **(SMALL | kwargs))
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(2 * 16 * n_envs)
    # Everything has learned: trunks, every head, every log-std, the critic
    for name, parameter in model.policy.named_parameters():
        changed = (
            (parameter.detach() != before[name]).flatten(1) if parameter.dim() > 1 else parameter.detach() != before[name]
        )
        if name.startswith(("action_net", "log_std")) and not model.use_sde:
            assert changed.flatten(1).any(dim=1).all(), name
        else:
            assert changed.any(), name
    obs = np.stack([observation_space.sample()] * 2) if not isinstance(observation_space, spaces.Dict) else None
    if obs is not None:
        assert action_space.contains(model.predict(obs, representative=1)[0][0])
    return model


@pytest.mark.parametrize("action", ACTION_SPACES)
def test_action_spaces(action: str) -> None:
    run(BOX, ACTION_SPACES[action])


@pytest.mark.parametrize("observation", OBSERVATION_SPACES)
def test_observation_spaces(observation: str) -> None:
    run(OBSERVATION_SPACES[observation], ACTION_SPACES["discrete"])


@pytest.mark.parametrize("assignment", sorted(set(ASSIGNMENTS) - {"fixed"}))
def test_assignments(assignment: str) -> None:
    model = run(BOX, ACTION_SPACES["box"], assignment=assignment)
    np.testing.assert_allclose(model.assignment.probabilities.sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("kwargs", [{}, {"sde_sample_freq": 4}, {"policy_kwargs": {"squash_output": True}}])
def test_gsde(kwargs: dict) -> None:
    run(BOX, ACTION_SPACES["box"], use_sde=True, **kwargs)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"clip_range_vf": 0.1},
        {"target_kl": 1e-4},
        {"normalize_advantage": False},
        {"normalize_advantage": "rollout"},
        {"ent_coef": 0.1},
    ],
)
def test_arguments_of_ppo(kwargs: dict) -> None:
    run(BOX, ACTION_SPACES["box"], **kwargs)


@pytest.mark.parametrize("gradients", [ManualGradients, AutogradGradients])
def test_advantages_are_normalised_once(gradients: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a minibatch is the rollout, it makes no difference over which of them advantages are normalised."""
    monkeypatch.setattr(ManualGradients, "fits", staticmethod(lambda model: gradients is ManualGradients))
    ends: dict[object, th.Tensor] = {}
    for how, batch_size in ((True, 16), ("rollout", 16), (True, 4), ("rollout", 4), (False, 16)):
        kwargs = SMALL | dict(n_steps=16, batch_size=batch_size, normalize_advantage=how)
        model = RepresentedPPO("MlpPolicy", vectorized(KnownAssignment, 3), k=3, **kwargs).learn(2 * 48)
        ends[how, batch_size] = th.nn.utils.parameters_to_vector(model.policy.parameters()).detach()
    th.testing.assert_close(ends["rollout", 16], ends[True, 16], rtol=1e-3, atol=1e-5)
    assert not th.allclose(ends["rollout", 4], ends[True, 4], rtol=1e-3, atol=1e-5)
    assert not th.allclose(ends["rollout", 16], ends[False, 16], rtol=1e-3, atol=1e-5)


def test_the_entropy_coefficient_may_follow_a_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    made = ManualGradients.__init__

    def watched(self: ManualGradients, model: RepresentedPPO, clip_range: float, ent_coef: float) -> None:
        seen.append(ent_coef)
        made(self, model, clip_range, ent_coef)

    monkeypatch.setattr(ManualGradients, "__init__", watched)
    kwargs = SMALL | dict(n_epochs=1, batch_size=16, ent_coef=LinearSchedule(1.0, 0.2, 1.0))
    model = RepresentedPPO("MlpPolicy", vectorized(KnownAssignment, 3), k=3, **kwargs).learn(4 * 48)
    # As for the learning rate: the share of the training that has passed, the rollout just collected included
    np.testing.assert_allclose(seen, [0.8, 0.6, 0.4, 0.2], atol=1e-12)
    assert model.logger.name_to_value["train/ent_coef"] == pytest.approx(0.2)


@pytest.mark.parametrize("gradients", [ManualGradients, AutogradGradients])
def test_target_kl_acts_on_the_worst_representative(gradients: type, monkeypatch: pytest.MonkeyPatch) -> None:
    model = RepresentedPPO("MlpPolicy", vectorized(KnownAssignment, 3), k=3, target_kl=0.01, **SMALL)
    monkeypatch.setattr(ManualGradients, "fits", staticmethod(lambda model: gradients is ManualGradients))
    # a mean of 0.0067 would pass
    monkeypatch.setattr(gradients, "approx_kl", lambda self: th.tensor([0.0, 0.0, 0.02]))
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(48)
    assert model._n_updates == 1 and "normalizer" not in before
    for name, parameter in model.policy.named_parameters():
        assert th.equal(parameter, before[name])  # it struck before the first step


# n_envs == n_agents (3), k == n_agents (3), k == 1, n_envs no multiple of k
@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size:UserWarning")
@pytest.mark.parametrize(("n_envs", "k"), [(3, 3), (3, 1), (1, 3), (4, 3), (7, 3), (6, 2), (5, 2)])
def test_every_number_of_environments(n_envs: int, k: int) -> None:
    model = RepresentedPPO("MlpPolicy", vectorized(lambda: time_limited(Drift()), n_envs), k=k, **(SMALL | {"n_steps": 32}))
    seen: dict[int, int] = {}

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            acted = self.model.rollout_buffer.representatives
            starts = self.model.rollout_buffer.episode_starts
            # Nobody is relieved within an episode
            assert ((acted[1:] == acted[:-1]) | (starts[1:] == 1)).all()
            for j, count in zip(*np.unique(acted, return_counts=True), strict=True):
                seen[int(j)] = seen.get(int(j), 0) + int(count)

    model.learn(4 * 32 * n_envs, callback=Watch())
    assert sorted(seen) == list(range(k))
    assert max(seen.values()) <= 2 * min(seen.values())


def test_a_time_out_is_bootstrapped_under_the_representative_that_acted() -> None:
    """Three steps, then a time limit, one env for two representatives: the next one is another at every time-out."""
    model = RepresentedPPO("MlpPolicy", vectorized(lambda: time_limited(Drift(), 3), 1), k=2, gae_lambda=1.0, **SMALL)
    with th.no_grad():
        model.policy.mlp_extractor.shift.copy_(3.0 * th.randn(2, 64))
    vectors = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            vectors.append(self.locals["vectors"][0])
            return True

        def _on_rollout_end(self) -> None:
            buffer = self.model.rollout_buffer
            terminal = th.tensor([[3.0, 0.0]])  # Drift's observation after three steps
            for start in range(0, 15, 3):
                j = buffer.representatives[start]
                value = self.model.policy.predict_values(terminal, th.as_tensor(j)).detach().numpy()[0]
                discounts = 0.99 ** np.arange(4)
                expected = discounts[:3] @ np.array(vectors[start : start + 3]) + discounts[3] * value
                np.testing.assert_allclose(buffer.returns[start, 0], expected, rtol=1e-4)

    model.learn(16, callback=Watch())


def test_a_task_that_ends_at_its_limit_is_not_bootstrapped() -> None:
    env = gym.make("rmdp/ResourceGathering-v0", max_episode_steps=2)
    model = RepresentedPPO("MlpPolicy", env, k=2, gae_lambda=1.0, gamma=1.0, **SMALL)
    model.learn(32)
    buffer = model.rollout_buffer
    # Within an episode of two steps nothing but what is paid for coming home counts: 99 or 98 for some, or 0
    rewards = np.unique(np.round(buffer.returns[:14], 3))
    assert set(rewards.tolist()) <= {0.0, 98.0, 99.0}


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_every_registered_environment(env_id: str) -> None:
    model = RepresentedPPO("MlpPolicy", env_id, k=2, **SMALL).learn(2 * 2 * 16)
    assert model.num_timesteps == 64 and model.n_envs == 2


def test_an_environment_that_can_be_made_again_is_copied_with_its_arguments() -> None:
    env = gym.make("rmdp/ResourceGathering-v0", shape=(3, 3), home=(2, 1))
    model = RepresentedPPO("MlpPolicy", env, k=4, **SMALL)
    assert model.n_envs == 4 and model.n_agents == 9
    assert RepresentedPPO("MlpPolicy", "rmdp/ResourceGathering-v0", k=5, **SMALL).n_envs == 5
    assert RepresentedPPO("MlpPolicy", make_vec_env("rmdp/ResourceGathering-v0", 2), k=5, **SMALL).n_envs == 2
    assert RepresentedPPO("MlpPolicy", KnownAssignment(), k=2, **SMALL).n_envs == 1


def test_a_wrapper_that_does_not_record_its_arguments_makes_representatives_take_turns() -> None:
    class Unrecorded(gym.Wrapper):
        pass

    env = Unrecorded(gym.make("rmdp/ResourceGathering-v0"))
    assert RepresentedPPO("MlpPolicy", env, k=3, **SMALL).n_envs == 1


def test_worker_processes() -> None:
    env = make_vec_env("sb3_rmdp.envs:rmdp/ResourceGathering-v0", 3, vec_env_cls=SubprocVecEnv)
    try:
        model = RepresentedPPO("MlpPolicy", env, k=3, **SMALL).learn(96)
        assert evaluate_welfare(model, env, 2).utilities.shape == (25, 3)
    finally:
        env.close()


def test_logs() -> None:
    model = RepresentedPPO("MlpPolicy", vectorized(KnownAssignment, 3), k=3, **SMALL)
    keys: set[str] = set()

    class Collect(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            values = self.logger.name_to_value
            keys.update(values)
            assert values["rollout/welfare_min"] <= values["rollout/social_welfare"]
            assert values["assignment/smallest_group"] >= 1

    model.learn(96, callback=Collect(), log_interval=10)
    assert {
        "rollout/social_welfare",
        "rollout/welfare_min",
        "assignment/reassigned",
        "assignment/entropy",
        "assignment/smallest_group",
    } <= keys
    assert {"train/loss", "train/value_loss", "train/approx_kl", "train/explained_variance"} <= set(model.logger.name_to_value)


def test_welfare_of_a_rollout_is_the_mean_over_agents_under_their_own_representative() -> None:
    env = vectorized(KnownAssignment, 3)
    kwargs = dict(representatives=[0, 1, 2, 0, 1, 2])
    model = RepresentedPPO("MlpPolicy", env, k=3, assignment="fixed", assignment_kwargs=kwargs, **SMALL)

    class Check(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            buffer = self.model.rollout_buffer
            utilities = np.stack(
                [KnownAssignment.table[:, buffer.actions[:, j, 0].astype(int)].mean(axis=1) for j in range(3)]
            )
            served = utilities[[0, 1, 2, 0, 1, 2], np.arange(6)]
            assert self.logger.name_to_value["rollout/social_welfare"] == pytest.approx(served.mean(), rel=1e-6)
            assert self.logger.name_to_value["rollout/welfare_min"] == pytest.approx(served.min(), rel=1e-6)

    model.learn(48, callback=Check())


def test_evaluate_policy_of_sb3_takes_models_and_representatives() -> None:
    kwargs = dict(representatives=[0, 1, 0, 1, 0, 1])
    env = vectorized(KnownAssignment, 2)
    model = RepresentedPPO("MlpPolicy", env, k=2, assignment="fixed", assignment_kwargs=kwargs, **SMALL)
    assert model.representative(1).agents.tolist() == [1, 3, 5]
    assert model.representative_of(agent=3) == 1
    means = []
    for j in range(2):
        action, _ = model.representative(j).predict(np.zeros(2, dtype=np.float32), deterministic=True)
        expected = KnownAssignment.table[:, action].mean()
        means.append(evaluate_policy(model.representative(j), KnownAssignment(), 3, warn=False)[0])
        assert means[-1] == pytest.approx(expected)
    for n_envs in (1, 2, 3):
        # Without a representative each acts equally often
        assert evaluate_policy(model, vectorized(KnownAssignment, n_envs), 4, warn=False)[0] == pytest.approx(np.mean(means))


# In so short a training clustering may find all agents alike, which scikit-learn remarks upon
@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("assignment", ["em", "end_to_end", "episodes", "random", "clustering"])
def test_the_same_seed_gives_the_same_model_bit_for_bit(assignment: str) -> None:
    def train(seed: int) -> dict[str, th.Tensor]:
        kwargs = SMALL | {"seed": seed}
        model = RepresentedPPO("MlpPolicy", "rmdp/ResourceGathering-v0", k=3, assignment=assignment, **kwargs)
        model.learn(5 * 16 * 3)
        return model.policy.state_dict() | {
            f"assignment.{name}": value
            for name, value in model.assignment.state_dict().items()
            if isinstance(value, th.Tensor)
        }

    first, again, other = train(0), train(0), train(1)
    assert all(th.equal(first[name], again[name]) for name in first)
    assert any(not th.equal(first[name], other[name]) for name in first)


def test_vec_normalize_of_observations() -> None:
    env = VecNormalize(vectorized(lambda: time_limited(Drift()), 3), norm_reward=False)
    model = RepresentedPPO("MlpPolicy", env, k=3, normalize_observations=False, **SMALL).learn(48)
    count = env.obs_rms.count
    env.training = True
    result = evaluate_welfare(model, env, 2)
    assert env.obs_rms.count == count and env.training
    assert result.utilities.shape == (3, 3)


def test_observations_are_normalised_once_per_rollout_from_raw_ones() -> None:
    model = RepresentedPPO("MlpPolicy", vectorized(lambda: time_limited(Drift()), 3), k=3, **SMALL)
    collected = []

    class Collect(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            collected.append(self.model.rollout_buffer.observations.copy())

    model.learn(96, callback=Collect())
    moments = model.policy.normalizer.moments()
    together = np.concatenate(collected).reshape(-1, 2).astype(np.float64)
    np.testing.assert_allclose(moments.mean.numpy(), together.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(moments.var.numpy(), together.var(axis=0), rtol=1e-9)


def test_k_equal_to_n_agents_gives_everybody_a_representative() -> None:
    model = RepresentedPPO("MlpPolicy", vectorized(KnownAssignment, 6), k=6, **SMALL).learn(96 * 3)
    assert sorted(model.assignment.representatives) == list(range(6))


def test_a_representative_without_agents_stays_as_it_is_but_for_the_shared_trunk() -> None:
    kwargs = dict(representatives=[0] * 6)
    env = DummyVecEnv([KnownAssignment] * 2)
    model = RepresentedPPO("MlpPolicy", env, k=2, assignment="fixed", assignment_kwargs=kwargs, **SMALL)
    before = model.policy.action_net.weight.detach().clone()
    model.learn(64)
    assert th.equal(model.policy.action_net.weight[1], before[1])
    assert not th.equal(model.policy.action_net.weight[0], before[0])
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())
