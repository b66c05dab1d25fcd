"""Models that grow: what was learned stays, and new representatives get agents and part from those they were copied from."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.budget import warm_start
from sb3_rmdp.budget.growth import ancestors, split_groups
from sb3_rmdp.envs import FactoredReward
from tests.probes import Drift, KnownAssignment, Spaces, TwoGroups, time_limited, vectorized

SMALL: dict[str, Any] = dict(n_steps=16, batch_size=16, n_epochs=2, seed=1, device="cpu", gamma=0.9)
BOX, DISCRETE = spaces.Box(-1.0, 1.0, (2,), np.float32), spaces.Discrete(3)
IMAGE = spaces.Box(0, 255, (36, 36, 1), np.uint8)
WEIGHTS = np.array([[1.0, 0.0], [0.5, 2.0], [0.0, 1.0], [3.0, 0.5], [1.0, 1.0]], dtype=np.float32)


def features_of(observation: Any, action: np.ndarray, next_observation: Any, info: dict) -> np.ndarray:
    return np.array([1.0 - action[0] ** 2, action[1]], dtype=np.float32)


TRUNKS = dict(policy_kwargs=dict(net_arch=dict(pi=[], vf=[8]), activation_fn=th.nn.ReLU))

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "mlp": (lambda: Spaces(BOX, DISCRETE, 5), {}),
    "no normaliser": (lambda: Spaces(BOX, DISCRETE, 5), dict(normalize_observations=False)),
    "continuous": (lambda: time_limited(Drift()), {}),
    "gSDE": (lambda: Spaces(BOX, BOX, 5), dict(use_sde=True)),
    "multi discrete": (lambda: Spaces(BOX, spaces.MultiDiscrete([2, 3]), 5), {}),
    "cnn": (lambda: Spaces(IMAGE, DISCRETE, 5), dict(policy="CnnPolicy")),
    "dict": (lambda: Spaces(spaces.Dict(a=BOX, b=DISCRETE), DISCRETE, 5), dict(policy="MultiInputPolicy")),
    "rank": (lambda: Spaces(BOX, DISCRETE, 5), dict(critic_rank=2)),
    "factored": (lambda: FactoredReward(time_limited(Drift()), features_of, WEIGHTS), {}),
    "own trunks": (lambda: Spaces(BOX, DISCRETE, 5), TRUNKS),
}


def assert_same(a: Any, b: Any) -> None:
    """Equal but for the order in which float32 products were added up; actions that are numbers are equal."""
    exact = np.issubdtype(np.asarray(a).dtype, np.integer)
    np.testing.assert_allclose(a, b, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-6)


def env_of(make: Any, n_envs: int) -> VecEnv:
    env = vectorized(make, n_envs)
    env.seed(0)
    return env


def known(model: RepresentedPPO) -> Any:
    """The assignment of a model, of any kind."""
    return model.assignment


def trained(make: Any, k: int, **kwargs: Any) -> RepresentedPPO:
    return RepresentedPPO(**{"policy": "MlpPolicy", "env": env_of(make, k), "k": k, **SMALL, **kwargs}).learn(16 * k * 2)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_representatives_act_and_are_valued_as_before(kind: str, k: int) -> None:
    make, kwargs = KINDS[kind]
    old = trained(make, k, **kwargs)
    larger = min(k + 2, old.n_agents)
    new = warm_start(old, larger, env_of(make, larger))
    assert new.k == larger and new.n_agents == old.n_agents and type(new.policy) is type(old.policy)

    old.action_space.seed(0)
    old.observation_space.seed(0)
    served = old.assignment.representatives
    family = [*range(k), *split_groups(_own(old, new), served, k, larger).parents]
    for _ in range(5):
        obs = old.observation_space.sample()
        tensor, _ = old.policy.obs_to_tensor(obs)
        for j, original in enumerate(family):
            action = new.predict(obs, deterministic=True, representative=j)[0]
            expected = old.predict(obs, deterministic=True, representative=original)[0]
            assert_same(action, expected)
            with th.no_grad():
                values = [model.policy.predict_values(tensor, th.tensor([who])) for model, who in ((old, original), (new, j))]
            assert_same(*values)
            assert values[0].abs().sum() > 0
            with th.no_grad():
                distributions = [
                    model.policy.get_distribution(tensor, th.tensor([who])) for model, who in ((old, original), (new, j))
                ]
                before, after = (distribution.entropy() for distribution in distributions)
            if before is not None and after is not None:  # that of gSDE depends on its noise
                if j < k:
                    # The same distribution, not only the same mode
                    assert_same(after, before)
                else:
                    assert float(after) >= float(before) - 1e-6  # copies explore again
    new.learn(16 * larger)
    assert new.num_timesteps == 16 * larger


def _own(old: RepresentedPPO, new: RepresentedPPO) -> np.ndarray:
    returns = new.reward_weights.of_agents(old._mean_returns.t()).numpy()
    return returns[np.arange(old.n_agents), old.assignment.representatives]


def test_everything_else_is_taken_over() -> None:
    nash: dict[str, Any] = dict(welfare="nash", welfare_kwargs=dict(shift=5.0))
    old = trained(TwoGroups, 2, critic_rank=2, learning_rate=1e-3, ent_coef=0.01, **nash)
    before = {name: value.clone() for name, value in old.policy.state_dict().items()}
    new = warm_start(old, 4, env_of(TwoGroups, 4))
    after = new.policy.state_dict()
    changed = {name for name, value in before.items() if value.shape != after[name].shape}
    assert changed == {"action_net.weight", "action_net.bias", "log_std", "mlp_extractor.shift"}
    for name in before:
        assert th.equal(after[name][:2] if name in changed else after[name], before[name]), name
    assert before["normalizer._moments.0.count"] > 0 and before["critic_basis.memory"].any()
    for name in ("learning_rate", "ent_coef", "n_steps", "batch_size", "n_epochs", "gamma", "critic_rank", "welfare_kwargs"):
        assert getattr(new, name) == getattr(old, name), name
    assert th.equal(new.welfare.state, old.welfare.state) and new.welfare.state.any()
    assert not new.policy.optimizer.state and old.policy.optimizer.state
    assert (new.seed, new.num_timesteps) == (1, 0)
    new.learn(64)
    # The old model is its own: nothing that the new one learns changes it
    assert all(th.equal(value, before[name]) for name, value in old.policy.state_dict().items())
    heads = new.policy.state_dict()["action_net.weight"]
    assert not th.equal(heads[0], heads[2])


def test_em_begins_with_what_it_knows_and_the_new_one_has_agents() -> None:
    old = trained(TwoGroups, 1)
    old.learn(16 * 20)
    new = warm_start(old, 2, env_of(TwoGroups, 2))
    assert th.equal(known(new).q_table[:, 0], known(old).q_table[:, 0])
    assert th.equal(known(new).q_table[:, 1], known(old).q_table[:, 0]) and known(old).q_table.any()
    assert known(new).n_updates == 0
    sizes = np.bincount(new.assignment.representatives, minlength=2)
    assert sizes.min() >= 1
    # Those who leave are worst off
    own = _own(old, new)
    moved = new.assignment.representatives == 1
    assert own[moved].max() <= own[~moved].min()


def test_one_policy_after_the_other_reaches_the_optimum() -> None:
    kwargs: dict[str, Any] = dict(n_steps=64, batch_size=64, learning_rate=5e-3, ent_coef=0.01, normalize_observations=False)
    model = trained(KnownAssignment, 1, **kwargs).learn(64 * 20)
    # Best actions for everybody: 1 or 2 with k = 1, both with k = 2
    for k, optimum in ((1, 5 / 6), (2, 10 / 6), (3, KnownAssignment.optimum)):
        if k > 1:
            model = warm_start(model, k, env_of(KnownAssignment, k)).learn(64 * 30 * k)
        assert evaluate_welfare(model, KnownAssignment(), 1).social_welfare == pytest.approx(optimum)


def test_copies_explore_again() -> None:
    model = trained(TwoGroups, 1)
    with th.no_grad():
        model.policy.log_std.fill_(-2.0)
    new = warm_start(model, 2, env_of(TwoGroups, 2))
    assert isinstance(new.policy.log_std, th.Tensor)
    assert new.policy.log_std.flatten().tolist() == [-2.0, 0.0]
    model = trained(KnownAssignment, 1)
    new = warm_start(model, 2, env_of(KnownAssignment, 2))
    for old, grown in zip(model.policy.action_net.parameters(), new.policy.action_net.parameters(), strict=True):
        assert th.equal(grown[0], old[0]) and th.equal(grown[1], 0.5 * old[0])


@pytest.mark.parametrize("assignment", ["end_to_end", "random", "clustering", "episodes"])
def test_other_assignments(assignment: str) -> None:
    old = trained(KnownAssignment, 2, assignment=assignment).learn(16 * 2 * 8)
    new = warm_start(old, 4, env_of(KnownAssignment, 4))
    assert type(new.assignment) is type(old.assignment) and new.assignment.alpha.shape == (6, 4)
    np.testing.assert_allclose(new.assignment.probabilities.sum(axis=1), 1.0, rtol=1e-6)
    if assignment in ("end_to_end", "episodes"):
        growth = split_groups(_own(old, new), old.assignment.representatives, 2, 4)
        np.testing.assert_array_equal(new.assignment.representatives, growth.served_by)
        assert set(growth.served_by) >= {2, 3}
    if assignment == "episodes":
        assert [aim is None for aim in known(new).aims] == [*(aim is None for aim in known(old).aims), True, True]
    if assignment == "random":
        assert np.bincount(new.assignment.representatives).tolist() == [2, 2, 1, 1]
    new.learn(16 * 4 * 8)


def test_soft_assignments_share_between_copies() -> None:
    old = trained(KnownAssignment, 2, assignment="end_to_end")
    new = warm_start(old, 3, env_of(KnownAssignment, 3))
    logits, grown = known(old).logits.detach(), known(new).logits.detach()
    growth = split_groups(_own(old, new), old.assignment.representatives, 2, 3)
    (parent,) = growth.parents
    other = 1 - parent
    assert th.equal(grown[:, other], logits[:, other])
    for agent in range(6):
        first, second = (2, parent) if growth.served_by[agent] == 2 else (parent, 2)
        assert grown[agent, first] == logits[agent, parent]
        assert float(grown[agent, second]) == pytest.approx(float(logits[agent, parent]) - np.log(10.0), rel=1e-5)


def test_groups_are_cut_where_it_is_best() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        n, k = 9, int(random.integers(1, 4))
        own, served = random.normal(size=n).round(1), random.integers(0, k, n)

        def squares(members: np.ndarray, own: np.ndarray = own) -> float:
            return float(((own[members] - own[members].mean()) ** 2).sum())

        growth = split_groups(own, served, k, k + 1)
        groups = [np.flatnonzero(served == j) for j in range(k)]
        (parent,) = growth.parents
        lacking = [(own.max() - own[group]).sum() if len(group) > 1 else -1.0 for group in groups]
        assert lacking[parent] == pytest.approx(max(lacking))
        new, left = np.flatnonzero(growth.served_by == k), np.flatnonzero(growth.served_by == parent)
        assert sorted([*new, *left]) == groups[parent].tolist() and own[new].max() <= own[left].min()
        others = growth.served_by != k
        np.testing.assert_array_equal(growth.served_by[others], served[others])
        # No other two parts of the group are more equal in themselves, be they intervals or not
        least = min(
            squares(np.array(part)) + squares(np.setdiff1d(groups[parent], part))
            for size in range(1, len(groups[parent]))
            for part in itertools.combinations(groups[parent], size)
        )
        assert squares(new) + squares(left) == pytest.approx(least)


def test_groups_of_equals_and_of_nobody() -> None:
    equal = split_groups(np.ones(6), np.array([0, 0, 0, 0, 1, 1]), 3, 4)
    assert equal.parents == [0] and np.bincount(equal.served_by, minlength=4).tolist() == [2, 2, 0, 2]
    unknown = split_groups(np.full(6, np.nan), np.zeros(6, dtype=int), 1, 6)
    assert unknown.parents == [0] * 5 and sorted(unknown.served_by) == list(range(6))
    # The group of an unknown representative lacks nothing that is known
    partly = split_groups(np.array([np.nan, np.nan, np.nan, 1.0, 2.0]), np.array([0, 0, 0, 1, 1]), 2, 3)
    assert partly.parents == [1] and partly.served_by.tolist() == [0, 0, 0, 2, 1]


def test_copies_of_copies_are_copies_of_the_first() -> None:
    growth = split_groups(np.array([0.0, 1.0, 10.0, 11.0]), np.array([1, 1, 1, 1]), 2, 4)
    # Agents 0 and 1 go to representative 2, then agent 0 to representative 3: both act like representative 1
    assert growth.parents == [1, 1] and growth.served_by.tolist() == [3, 2, 1, 1]


def test_growing_twice_is_growing_once() -> None:
    old = trained(KnownAssignment, 1).learn(160)
    once = warm_start(old, 3, env_of(KnownAssignment, 3))
    twice = warm_start(warm_start(old, 2, env_of(KnownAssignment, 2)), 3, env_of(KnownAssignment, 3))
    for name, value in once.policy.state_dict().items():
        if not name.startswith("action_net"):
            assert th.equal(value, twice.policy.state_dict()[name]), name
    # A copy of a copy is shrunk twice, in any other way it is the same
    copies = [model.policy.state_dict()["action_net.weight"] for model in (once, twice)]
    assert th.equal(copies[0][:2], copies[1][:2])
    assert any(th.equal(copies[1][2], factor * copies[0][2]) for factor in (0.5, 1.0))
    np.testing.assert_array_equal(once.assignment.representatives, twice.assignment.representatives)
    assert ancestors(once) == [[1, 160]] and ancestors(twice) == [[1, 160], [2, 0]]


def test_up_to_one_policy_for_each_agent_and_before_any_training() -> None:
    old = RepresentedPPO("MlpPolicy", env_of(KnownAssignment, 2), k=2, **SMALL)
    new = warm_start(old, 6, env_of(KnownAssignment, 6)).learn(96)
    assert new.k == new.n_agents == 6


def test_from_a_file_to_an_id_and_back(tmp_path: Path) -> None:
    id_ = "rmdp/ResourceGathering-v0"
    old = RepresentedPPO("MlpPolicy", id_, k=2, **SMALL).learn(32)
    old.save(tmp_path / "old.zip")
    loaded = RepresentedPPO.load(tmp_path / "old.zip", device="cpu")
    with pytest.raises(ValueError, match="pass env"):
        warm_start(loaded, 3)
    new = warm_start(loaded, 3, id_, seed=7)
    assert (new.n_envs, new.seed, ancestors(new)) == (3, 7, [[2, 32]])
    new.learn(48)
    new.save(tmp_path / "new.zip")
    again = RepresentedPPO.load(tmp_path / "new.zip", env=id_, device="cpu")
    assert ancestors(again) == [[2, 32]]
    # In the model's own environments representatives take turns
    last = warm_start(again, 4)
    assert last.n_envs == 3 and ancestors(last) == [[2, 32], [3, 48]]
    last.learn(48)


def test_factored_rewards_from_a_file(tmp_path: Path) -> None:
    make = KINDS["factored"][0]
    old = trained(make, 2)
    old.save(tmp_path / "old.zip")
    first, second = (
        warm_start(model, 4, env_of(make, 4)) for model in (old, RepresentedPPO.load(tmp_path / "old.zip", device="cpu"))
    )
    np.testing.assert_array_equal(first.assignment.representatives, second.assignment.representatives)
    assert known(first).q_table.shape == (2, 4)


class Other(KnownAssignment):
    n_agents = 7


class Wide(KnownAssignment):
    observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)


def test_bad_input() -> None:
    model = trained(KnownAssignment, 2)
    for k, message in ((2, "has 2 representatives already"), (1, "from 3 on"), (7, "n_agents=6"), (2.5, "integer")):
        with pytest.raises(ValueError, match=message):
            warm_start(model, k, env_of(KnownAssignment, 3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="n_agents=7"):
        warm_start(model, 3, env_of(Other, 3))
    with pytest.raises(ValueError, match="observation_space"):
        warm_start(model, 3, env_of(Wide, 3))
    with pytest.raises(gym.error.Error):
        warm_start(model, 3, "NoSuch-v0")
    fixed = trained(KnownAssignment, 2, assignment="fixed", assignment_kwargs=dict(representatives=[0, 0, 0, 1, 1, 1]))
    with pytest.raises(ValueError, match="'fixed' cannot grow"):
        warm_start(fixed, 3, env_of(KnownAssignment, 3))
