"""Factored rewards and critics of few values: the same training as with a reward and a value for every agent."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import EvalCallback
from torch import nn

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.assignment import HardAssignment
from sb3_rmdp.common.callbacks import WelfareEvalCallback
from sb3_rmdp.envs import FactoredReward, VectorReward
from sb3_rmdp.represented_ppo.manual_gradients import ManualGradients
from tests.probes import vectorized

N, M, K = 200, 5, 3
WEIGHTS = (np.random.default_rng(0).normal(size=(N, M)) * [0.5, 1.0, 2.0, 1.0, 1.0]).astype(np.float32)
SMALL: dict[str, Any] = dict(k=K, n_steps=24, batch_size=8, n_epochs=2, seed=0, device="cpu", normalize_observations=False)
ASSIGNMENTS: dict[str, dict] = {
    "em": dict(warm_start=1, mixing=0.3),
    "end_to_end": dict(learning_rate=0.02),
    "episodes": dict(warm_start=1, patience=2),
    "clustering": dict(universal_fraction=0.4),
    "random": {},
}


class Walk(gym.Env):
    """A walk on a line, six steps long, then a time limit on some of the walks; nothing in it is random."""

    observation_space = spaces.Box(-10.0, 10.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
        super().reset(**kwargs)
        self.time, self.position = 0, 0.0
        return self.observe(), {}

    def observe(self) -> np.ndarray:
        return np.array([self.time, self.position], dtype=np.float32)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.time += 1
        self.position += float(action[0])
        return self.observe(), 0.0, self.time == 6 and self.position > 0.0, self.time == 6, {}


def features(obs: Any, action: np.ndarray, next_obs: np.ndarray, info: dict) -> np.ndarray:
    """Hats on a line; the last feature is the time."""
    hats = np.maximum(0.0, 1.0 - np.abs(next_obs[1] - np.linspace(-2.0, 2.0, M - 1)))
    return np.append(hats, 0.1 * next_obs[0])


def factored(weights: np.ndarray = WEIGHTS) -> gym.Env:
    return FactoredReward(Walk(), features, weights)


def by_vector() -> gym.Env:
    return VectorReward(Walk(), lambda *transition: WEIGHTS @ features(*transition), N)


class Mixtures(nn.Module):
    """A critic's last layer with a value for every agent, all of them mixtures of a few numbers."""

    def __init__(self, weights: th.Tensor, layer: nn.Linear):
        super().__init__()
        self.weights, self.layer = weights, layer

    def forward(self, x: th.Tensor) -> th.Tensor:
        return self.layer(x) @ self.weights.t()


def tied_to(model: RepresentedPPO, **kwargs: Any) -> RepresentedPPO:
    """A model that is paid by vectors, and has the networks of one that is paid by features."""
    other = RepresentedPPO("MlpPolicy", vectorized(by_vector, 4), **kwargs, **SMALL)
    layer = nn.Linear(64, M)
    layer.load_state_dict(model.policy.value_net.state_dict())
    # The critic's outputs are worth as much as each other, whatever the features are measured in
    balanced = WEIGHTS / np.sqrt(np.square(WEIGHTS).mean(axis=0))
    other.policy.value_net = Mixtures(th.as_tensor(balanced), layer)  # type: ignore[assignment]
    state = {f"value_net.layer.{k[10:]}" if k.startswith("value_net") else k: v for k, v in model.policy.state_dict().items()}
    other.policy.load_state_dict(state)
    other.policy.optimizer = th.optim.Adam(other.policy.parameters(), lr=3e-4, eps=1e-5, fused=True)
    return other


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("welfare", ["utilitarian", "gini"])
def test_training_by_features_is_training_by_agents(
    assignment: str, by_hand: bool, welfare: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four environments for three representatives, time limits, five updates: parameters and assignment stay equal."""
    if not by_hand:
        monkeypatch.setattr(ManualGradients, "fits", lambda model: False)
    kwargs = dict(assignment=assignment, assignment_kwargs=ASSIGNMENTS[assignment], welfare=welfare)
    few = RepresentedPPO("MlpPolicy", vectorized(factored, 4), **kwargs, **SMALL)  # type: ignore[arg-type]
    many = tied_to(few, **kwargs)
    assert few.n_agents == N and few.rollout_buffer.n_values == M
    for model in (few, many):
        np.random.seed(1)
        th.manual_seed(1)
        model.learn(5 * 4 * 24, log_interval=100)
    own = dict(many.policy.named_parameters())
    for name, parameter in few.policy.named_parameters():
        other = own[name.replace("value_net.", "value_net.layer.") if name.startswith("value_net") else name]
        np.testing.assert_allclose(parameter.detach(), other.detach(), atol=2e-4, err_msg=name)
    np.testing.assert_allclose(few.assignment.probabilities, many.assignment.probabilities, atol=1e-4)
    assert len(set(few.assignment.representatives)) > 1
    assert (few.assignment.importance is None) == (welfare == "utilitarian")
    logs = [model.logger.name_to_value for model in (few, many)]
    for name in ("rollout/social_welfare", "rollout/welfare_min", "train/value_loss", "train/explained_variance"):
        assert name in logs[0] and logs[0][name] == pytest.approx(logs[1][name], rel=2e-3, abs=1e-4), name


def test_evaluations_by_features_are_those_by_agents(tmp_path: Path) -> None:
    model = RepresentedPPO("MlpPolicy", vectorized(factored, 3), **SMALL).learn(144)
    results = []
    for make in (factored, by_vector):
        th.manual_seed(3)
        if make is by_vector:  # the same agents, known by another name
            model.n_features, model.population_id = None, None
        results.append(evaluate_welfare(model, vectorized(make, 4), n_eval_episodes=5, deterministic=False))
    few, many = results
    np.testing.assert_allclose(few.utilities, many.utilities, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(few.utilities_standard_error, many.utilities_standard_error, rtol=1e-3, atol=1e-4)
    assert few.social_welfare == pytest.approx(many.social_welfare, rel=1e-5)
    assert few.standard_error == pytest.approx(many.standard_error, rel=1e-4)


def test_callbacks_report_the_welfare_of_the_agents(tmp_path: Path) -> None:
    stock = EvalCallback(vectorized(factored, 3), n_eval_episodes=K, eval_freq=24, verbose=0, warn=False)
    ours = WelfareEvalCallback(vectorized(factored, 2), n_eval_episodes=1, eval_freq=24, verbose=0)
    model = RepresentedPPO("MlpPolicy", vectorized(factored, 3), **SMALL).learn(72, callback=[stock, ours])
    # Deterministic, and evaluated before the update
    welfare = evaluate_welfare(RepresentedPPO("MlpPolicy", vectorized(factored, 3), **SMALL), factored(), 1).social_welfare
    assert stock.last_mean_reward == pytest.approx(welfare, rel=1e-4)
    assert ours.last_mean_reward == pytest.approx(welfare, rel=1e-4)
    assert model.assignment.q.shape == (N, K)  # type: ignore[union-attr]


def test_saved_and_gone_on_with(tmp_path: Path) -> None:
    model = RepresentedPPO("MlpPolicy", vectorized(factored, 3), **SMALL).learn(144)
    model.save(tmp_path / "model")
    assert (tmp_path / "model.zip").stat().st_size < 500_000
    alone = RepresentedPPO.load(tmp_path / "model", device="cpu")
    observation = np.ones(2, dtype=np.float32)
    np.testing.assert_array_equal(
        alone.predict(observation, representative=1, deterministic=True)[0],
        model.predict(observation, representative=1, deterministic=True)[0],
    )
    np.testing.assert_array_equal(alone.assignment.representatives, model.assignment.representatives)
    with pytest.raises(ValueError, match=r"200 agents on 5 reward features.*pass env to load"):
        alone.assignment.q  # noqa: B018
    assert evaluate_welfare(alone, factored(), 1).social_welfare == evaluate_welfare(model, factored(), 1).social_welfare
    alone.set_env(vectorized(factored, 3))
    alone.learn(72, reset_num_timesteps=False)
    np.testing.assert_allclose(
        RepresentedPPO.load(tmp_path / "model", env=factored(), device="cpu").assignment.q,  # type: ignore[arg-type]
        model.assignment.q,  # type: ignore[arg-type]
    )


class Listening(HardAssignment):
    """An assignment that knows nothing of features."""

    def record_episodes(self, representatives: np.ndarray, returns: np.ndarray) -> None:
        assert returns.shape == (len(representatives), self.n_agents)
        self.heard = True

    def record_rewards(self, representatives: np.ndarray, reward_vectors: np.ndarray) -> None:
        assert reward_vectors.shape == (*representatives.shape, self.n_agents)
        self.seen = reward_vectors.copy()


def test_an_assignment_of_one_s_own_is_told_of_agents() -> None:
    model = RepresentedPPO("MlpPolicy", vectorized(factored, 3), assignment=Listening, **SMALL)
    model.learn(72)
    assert isinstance(model.assignment, Listening) and model.assignment.heard
    assert np.linalg.matrix_rank(model.assignment.seen.reshape(-1, N)) <= M


def test_no_array_of_all_agents_and_steps_is_made() -> None:
    """Besides weights, whatever there is per agent is there once, or once per representative: far from once per step."""
    n_agents = 50_000
    weights = np.random.default_rng(0).random((n_agents, M)).astype(np.float32)
    model = RepresentedPPO("MlpPolicy", vectorized(lambda: factored(weights), 3), **{**SMALL, "n_steps": 200})
    tracemalloc.start()
    model.learn(600)
    evaluate_welfare(model, factored(weights), 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n_agents * 200  # bytes: less than one of a step and an agent, where each would have four or more


@pytest.mark.parametrize("rank", [N, 12])
def test_actors_of_a_critic_of_few_values_ascend_the_exact_rewards(rank: int) -> None:
    """Rewards lie in a subspace of five: a critic of that many values or more loses nothing, whatever its basis."""
    model = RepresentedPPO("MlpPolicy", vectorized(by_vector, 4), critic_rank=rank, **SMALL)
    model.learn(96)
    buffer, basis = model.rollout_buffer, model.policy.critic_basis
    assert basis is not None and buffer.values.shape == (24, 4, rank)
    exact = np.stack([buffer.reward_vectors[s, e] for s in range(24) for e in range(4)])
    seen = (basis.project(th.as_tensor(exact)) @ basis.weights.t()).numpy()
    np.testing.assert_allclose(seen, exact, atol=2e-4)


@pytest.mark.parametrize("rank", [1, 2, N])
def test_advantages_are_those_of_weighted_rewards_and_values(rank: int) -> None:
    """Equation 9, slowly: sum the rewards of a representative's agents, and the values that the critic has for them."""
    model = RepresentedPPO("MlpPolicy", vectorized(by_vector, 4), critic_rank=rank, **SMALL)
    model.learn(96)
    buffer, basis = model.rollout_buffer, model.policy.critic_basis
    assert basis is not None
    alpha = model.assignment.probabilities.astype(np.float64)
    agent_values = buffer.values.astype(np.float64) @ basis.weights.numpy().T.astype(np.float64)
    acting = alpha.T[buffer.representatives]  # (steps, envs, agents)
    rewards, values = (buffer.reward_vectors * acting).sum(-1), (agent_values * acting).sum(-1)
    # Episodes begin at multiples of six: within one, and not at its end, where a time limit may have struck, one advantage
    # is made of the next
    inside = [s for s in range(24) if s % 6 != 5]
    within = [buffer.advantages[s] - 0.99 * 0.95 * buffer.advantages[s + 1] for s in inside]
    wanted = [rewards[s] + 0.99 * values[s + 1] - values[s] for s in inside]
    np.testing.assert_allclose(within, wanted, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_critic_of_few_values_learns_saves_and_goes_on(
    by_hand: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not by_hand:
        monkeypatch.setattr(ManualGradients, "fits", lambda model: False)
    model = RepresentedPPO("MlpPolicy", vectorized(by_vector, 3), critic_rank=4, **SMALL).learn(144)
    model.save(tmp_path / "model")
    loaded = RepresentedPPO.load(tmp_path / "model", vectorized(by_vector, 3), device="cpu")
    assert loaded.critic_rank == 4 and loaded.policy.critic_basis is not None and model.policy.critic_basis is not None
    assert loaded.policy.critic_basis.weights.equal(model.policy.critic_basis.weights)
    assert loaded.policy.critic_basis.memory.equal(model.policy.critic_basis.memory)
    assert loaded.value_weights.weights.equal(model.policy.critic_basis.weights)
    loaded.learn(72, reset_num_timesteps=False)


class Broken(gym.Wrapper):
    """A factored environment that gives what it is told to."""

    n_agents = N

    def __init__(self, weights: Any, phi: Any):
        super().__init__(Walk())
        self.reward_weights, self.phi = weights, phi

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        obs, _, terminated, truncated, info = super().step(action)
        return obs, 0.0, terminated, truncated, {**info, "reward_features": self.phi}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (WEIGHTS[:7], r"reward_weights have shape \(7, 5\).*shape \(200, n_features\)"),
        (WEIGHTS[:, 0], r"reward_weights have shape \(200,\)"),
        (WEIGHTS[:, :0], r"reward_weights have shape \(200, 0\)"),
        (np.where(np.arange(M) == 3, np.nan, WEIGHTS), r"reward_weights\[0, 3\] is nan"),
    ],
)
def test_weights_that_do_not_do(weights: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RepresentedPPO("MlpPolicy", vectorized(lambda: Broken(weights, np.zeros(M)), 2), **SMALL)


@pytest.mark.parametrize(
    ("phi", "message"),
    [
        (np.array([0, 1, np.nan, 0, 0]), "env 0 gave reward feature 2 the value nan"),
        (np.zeros(M + 1), r'env 0 gave one of shape \(6,\) in info\["reward_features"\].*shape \(5,\)'),
        (None, r'env 0 gave no reward features in info\["reward_features"\]'),
    ],
)
def test_features_that_do_not_do(phi: Any, message: str) -> None:
    model = RepresentedPPO("MlpPolicy", vectorized(lambda: Broken(WEIGHTS, phi), 2), **SMALL)
    with pytest.raises(ValueError, match=message):
        model.learn(48)


def test_other_agents_or_features_are_refused(tmp_path: Path) -> None:
    model = RepresentedPPO("MlpPolicy", vectorized(factored, 3), **SMALL)
    for make, message in (
        (by_vector, "the environment gives reward vectors, the model was made for 5 reward features"),
        (lambda: factored(np.ones((N, 4), dtype=np.float32)), "gives 4 reward features, the model was made for 5"),
        (lambda: factored(WEIGHTS + 1.0), "the environment has the population"),
        (lambda: Broken(WEIGHTS + 1.0, None), "the environment has the population"),
    ):
        with pytest.raises(ValueError, match=message):
            model.set_env(vectorized(make, 3))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=message):
            evaluate_welfare(model, vectorized(make, 3))  # type: ignore[arg-type]


def test_ranks_that_do_not_do() -> None:
    with pytest.raises(ValueError, match="critic_rank=201 for n_agents=200: choose an integer from 1 to 200"):
        RepresentedPPO("MlpPolicy", vectorized(by_vector, 2), critic_rank=201, **SMALL)
    with pytest.raises(ValueError, match="critic_rank=3: rewards of this environment are factored already"):
        RepresentedPPO("MlpPolicy", vectorized(factored, 2), critic_rank=3, **SMALL)


def test_a_model_of_as_many_features_as_agents_misses_its_weights_without_an_environment(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).random((5, 5)).astype(np.float32)
    model = RepresentedPPO("MlpPolicy", vectorized(lambda: factored(weights), 3), assignment="em", **SMALL).learn(72)
    model.save(tmp_path / "model")
    loaded = RepresentedPPO.load(tmp_path / "model", device="cpu")
    with pytest.raises(ValueError, match="weights of 5 agents on 5 reward features come with the environment"):
        loaded.assignment.q  # noqa: B018
    loaded.set_env(vectorized(lambda: factored(weights), 3))
    assert loaded.assignment.q.equal(model.assignment.q) and not model.assignment.q.equal(model.assignment.q_rewards)


def test_advantages_of_every_agent_are_not_known_to_a_critic_of_few_values() -> None:
    with pytest.raises(ValueError, match=r"critic_rank=2 with assignment=.end_to_end.: .* leave critic_rank out"):
        RepresentedPPO("MlpPolicy", vectorized(by_vector, 3), critic_rank=2, assignment="end_to_end", **SMALL)
    # One that an earlier version has saved acts, but does not go on
    model = RepresentedPPO("MlpPolicy", vectorized(by_vector, 3), assignment="end_to_end", **SMALL)
    model.critic_rank = 2
    with pytest.raises(ValueError, match="critic_rank=2 with assignment='end_to_end'"):
        model.learn(72)
