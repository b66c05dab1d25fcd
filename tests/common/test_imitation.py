"""Representatives that learn from episodes, and what this leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.utils import obs_as_tensor

from sb3_rmdp.common.imitation import EVERY, LEARNED, LEAST_STD, Imitation, copy_representative, most_alike
from sb3_rmdp.common.policies import RepresentedActorCriticPolicy, RepresentedMultiInputActorCriticPolicy
from sb3_rmdp.common.trajectories import Lesson, Observations, Trajectory

BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)
DICT = spaces.Dict({"a": BOX, "b": spaces.Box(-1.0, 1.0, (2,), np.float32)})
GAUSSIAN, CATEGORICAL = spaces.Box(-1.0, 1.0, (2,), np.float32), spaces.Discrete(4)
COUNTABLE: dict[str, spaces.Space] = {
    "discrete": CATEGORICAL,
    "multi_discrete": spaces.MultiDiscrete([3, 2]),
    "multi_binary": spaces.MultiBinary(3),
}
ACTION_SPACES = {"box": GAUSSIAN, **COUNTABLE}
SMALL: dict[str, Any] = dict(n_steps=16, batch_size=8, n_epochs=2, seed=0, device="cpu")


def make_policy(
    action_space: spaces.Space, k: int = 3, observation_space: spaces.Space = BOX, rate: float = 3e-3, **kwargs: Any
) -> RepresentedActorCriticPolicy:
    """A policy that has taken a few steps at random, so that there are moments, and nobody is like another."""
    th.manual_seed(0)
    is_dict = isinstance(observation_space, spaces.Dict)
    cls = RepresentedMultiInputActorCriticPolicy if is_dict else RepresentedActorCriticPolicy
    policy = cls(observation_space, action_space, lambda _: rate, k=k, n_rewards=4, **kwargs)
    for _ in range(3):
        for parameter in policy.parameters():
            parameter.grad = th.randn_like(parameter)
        policy.optimizer.step()
    policy.optimizer.zero_grad()
    with th.no_grad():
        policy.action_net.weight.add_(0.3 * th.randn_like(policy.action_net.weight))
    return policy


def make_trajectory(action_space: spaces.Space, n_steps: int = 12, observation_space: spaces.Space = BOX) -> Trajectory:
    """Actions are stored as buffers do it, as floats, one row each."""
    observation_space.seed(1)
    action_space.seed(1)
    samples = [observation_space.sample() for _ in range(n_steps)]
    observations: Observations
    if isinstance(observation_space, spaces.Dict):
        observations = {key: np.stack([sample[key] for sample in samples]) for key in observation_space.spaces}
    else:
        observations = np.stack(samples)
    actions = np.stack([np.asarray(action_space.sample()).reshape(-1) for _ in range(n_steps)]).astype(np.float32)
    return Trajectory(observations, actions, np.zeros((0, 4), dtype=np.float32))


def all_alike(trajectory: Trajectory, action: float) -> Trajectory:
    return trajectory._replace(actions=np.full_like(trajectory.actions, action))


def log_probs(policy: RepresentedActorCriticPolicy, trajectory: Trajectory, representative: int) -> th.Tensor:
    actions = th.as_tensor(trajectory.actions)
    if isinstance(policy.action_space, spaces.Discrete):
        actions = actions.long().flatten()
    who = th.full((len(actions),), representative)
    with th.no_grad():
        return policy.get_distribution(obs_as_tensor(trajectory.observations, policy.device), who).log_prob(actions)


def modes(policy: RepresentedActorCriticPolicy, trajectory: Trajectory, representative: int) -> np.ndarray:
    actions = policy.predict(trajectory.observations, representative=representative, deterministic=True)[0]
    return actions.reshape(len(trajectory.actions), -1)


def give_constant_heads(policy: RepresentedActorCriticPolicy, outputs: list[list[float]]) -> None:
    """Every representative does the same whatever it sees."""
    with th.no_grad():
        policy.action_net.weight.zero_()
        policy.action_net.bias.copy_(th.tensor(outputs))


def snapshot(policy: RepresentedActorCriticPolicy) -> dict[str, th.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}


def changed(policy: RepresentedActorCriticPolicy, before: dict[str, th.Tensor]) -> set[str]:
    return {name for name, parameter in policy.named_parameters() if not th.equal(parameter, before[name])}


# Who is like an episode


@pytest.mark.parametrize("expected", range(3))
def test_who_acts_most_alike_has_the_nearest_means(expected: int) -> None:
    policy = make_policy(GAUSSIAN)
    means = [[-0.5, 0.5], [0.1, 0.0], [0.1, -0.6]]
    give_constant_heads(policy, means)
    trajectory = make_trajectory(GAUSSIAN)
    noise = np.random.default_rng(0).normal(scale=0.2, size=trajectory.actions.shape)
    assert most_alike(policy, trajectory._replace(actions=(means[expected] + noise).astype(np.float32))) == expected


def test_nobody_is_more_alike_for_exploring_more() -> None:
    policy = make_policy(GAUSSIAN)
    give_constant_heads(policy, [[-0.5, -0.5], [0.1, 0.1], [0.9, 0.9]])
    with th.no_grad():
        policy.log_std.copy_(th.tensor([[-4.0], [-4.0], [0.0]]).expand(3, 2))
    trajectory = all_alike(make_trajectory(GAUSSIAN), 0.3)
    densities = [float(log_probs(policy, trajectory, j).mean()) for j in range(3)]
    assert int(np.argmax(densities)) == 2  # or it would not be tested
    assert most_alike(policy, trajectory) == 1


@pytest.mark.parametrize("name", COUNTABLE)
@pytest.mark.parametrize("expected", range(3))
def test_who_acts_most_alike_finds_countable_actions_most_probable(expected: int, name: str) -> None:
    policy = make_policy(COUNTABLE[name])
    trajectory = make_trajectory(COUNTABLE[name])
    own = trajectory._replace(actions=modes(policy, trajectory, expected).astype(np.float32))
    assert not np.array_equal(own.actions, modes(policy, trajectory, (expected + 1) % 3))
    assert most_alike(policy, own) == expected
    likeness = [float(log_probs(policy, trajectory, j).mean()) for j in range(3)]
    assert most_alike(policy, trajectory) == int(np.argmax(likeness))


def test_who_is_alike_sees_dictionaries() -> None:
    policy = make_policy(CATEGORICAL, observation_space=DICT)
    trajectory = make_trajectory(CATEGORICAL, 12, DICT)
    for j in range(3):
        assert most_alike(policy, trajectory._replace(actions=modes(policy, trajectory, j).astype(np.float32))) == j


# Copies


@pytest.mark.parametrize(
    ("action_space", "kwargs"),
    [(GAUSSIAN, {}), (GAUSSIAN, dict(use_sde=True)), (CATEGORICAL, {}), (spaces.MultiDiscrete([3, 2]), {})],
    ids=["gaussian", "sde", "discrete", "multi_discrete"],
)
def test_a_copy_acts_and_is_valued_like_the_other_and_nobody_else_changes(action_space: spaces.Space, kwargs: dict) -> None:
    policy = make_policy(action_space, **kwargs)
    state = policy.optimizer.state
    kept = {
        name: [tensor.detach().clone() for tensor in (parameter, state[parameter]["exp_avg"], state[parameter]["exp_avg_sq"])]
        for name, parameter in policy.named_parameters()
    }
    trajectory = make_trajectory(action_space)
    obs = th.as_tensor(trajectory.observations)
    who = [th.full((12,), j) for j in range(3)]
    assert not th.allclose(log_probs(policy, trajectory, 2), log_probs(policy, trajectory, 0), atol=0.01)
    copy_representative(policy, source=2, target=0)
    # Up to rounding: products of matrices depend on where a row lies
    th.testing.assert_close(log_probs(policy, trajectory, 2), log_probs(policy, trajectory, 0))
    np.testing.assert_allclose(modes(policy, trajectory, 2), modes(policy, trajectory, 0), rtol=1e-5, atol=1e-6)
    th.testing.assert_close(policy.predict_values(obs, who[2]), policy.predict_values(obs, who[0]))
    own = {"action_net.weight", "action_net.bias", "mlp_extractor.shift"} | ({"log_std"} & kept.keys())
    for name, parameter in policy.named_parameters():
        after = [parameter.detach(), state[parameter]["exp_avg"], state[parameter]["exp_avg_sq"]]
        for tensor, before in zip(after, kept[name], strict=True):
            if name in own:
                rows, rows_before = tensor.reshape(3, -1), before.reshape(3, -1)
                assert th.equal(rows, rows_before[[2, 1, 2]]), name
                # Nobody was like another
                assert not th.equal(rows_before[0], rows_before[2]) or name == "mlp_extractor.shift", name
            else:
                assert th.equal(tensor, before), name
        assert float(state[parameter]["step"]) == 3.0


def test_a_copy_before_the_first_step_and_of_the_only_representative() -> None:
    th.manual_seed(0)
    policy = RepresentedActorCriticPolicy(BOX, GAUSSIAN, lambda _: 1e-3, k=2, n_rewards=4)
    copy_representative(policy, 0, 1)
    assert th.equal(policy.action_net.weight[0], policy.action_net.weight[1]) and not policy.optimizer.state
    for kwargs in ({}, dict(use_sde=True)):
        alone = make_policy(GAUSSIAN, k=1, **kwargs)
        before = snapshot(alone)
        copy_representative(alone, 0, 0)
        assert not changed(alone, before)


# Steps


@pytest.mark.parametrize("observation_space", [BOX, DICT], ids=["vectors", "dict"])
@pytest.mark.parametrize("name", ACTION_SPACES)
def test_a_step_makes_actions_more_probable_and_leaves_everything_else_alone(
    name: str, observation_space: spaces.Space
) -> None:
    policy = make_policy(ACTION_SPACES[name], observation_space=observation_space)
    trajectory = make_trajectory(ACTION_SPACES[name], observation_space=observation_space)
    before, moments = snapshot(policy), {p: state["exp_avg"].clone() for p, state in policy.optimizer.state.items()}
    gradients = {parameter: th.randn_like(parameter) for parameter in policy.parameters()}
    for parameter, gradient in gradients.items():
        parameter.grad = gradient
    kept = {parameter: gradient.clone() for parameter, gradient in gradients.items()}
    likely = log_probs(policy, trajectory, 1)
    Imitation(policy, [Lesson(1, trajectory, False)], batch_size=64).after_minibatch()
    assert log_probs(policy, trajectory, 1).mean() > likely.mean()
    # The update's own: neither written to nor replaced
    for parameter, gradient in gradients.items():
        assert parameter.grad is gradient and th.equal(gradient, kept[parameter])
    for parameter, exp_avg in moments.items():
        assert th.equal(policy.optimizer.state[parameter]["exp_avg"], exp_avg)
        assert float(policy.optimizer.state[parameter]["step"]) == 3.0
    critic = set(map(id, policy.critic_parameters()))
    names = {name for name, parameter in policy.named_parameters() if id(parameter) not in critic} - {"log_std"}
    assert changed(policy, before) == names
    for name, parameter in (("weight", policy.action_net.weight), ("bias", policy.action_net.bias)):
        assert th.equal(parameter[[0, 2]], before[f"action_net.{name}"][[0, 2]])


@pytest.mark.parametrize(
    "kwargs", [dict(use_sde=True), dict(share_features_extractor=False), dict(net_arch=dict(pi=[], vf=[8]))]
)
def test_other_kinds_of_policies(kwargs: dict) -> None:
    policy = make_policy(GAUSSIAN, **kwargs)
    trajectory, before = make_trajectory(GAUSSIAN), snapshot(policy)
    imitation = Imitation(policy, [Lesson(2, trajectory, False)], batch_size=64)

    def error() -> float:
        return float(np.square(modes(policy, trajectory, 2) - trajectory.actions).mean())

    first = error()
    for _ in range(5 * EVERY):
        imitation.after_minibatch()
    imitation.finish()
    assert error() < first
    critic = set(map(id, policy.critic_parameters()))
    assert not changed(policy, before) & {name for name, p in policy.named_parameters() if id(p) in critic}
    assert th.equal(policy.log_std, before["log_std"])


def test_all_lessons_are_learned_at_once() -> None:
    policy = make_policy(CATEGORICAL, rate=1e-2)
    trajectory = make_trajectory(CATEGORICAL)
    lessons = [Lesson(j, all_alike(trajectory, action), False) for j, action in ((0, 3.0), (2, 1.0))]
    imitation = Imitation(policy, lessons, batch_size=32)
    head = policy.action_net.bias[1].clone()
    for _ in range(40 * EVERY):
        imitation.after_minibatch()
    for lesson in lessons:
        assert float(log_probs(policy, lesson.trajectory, lesson.representative).min()) > np.log(0.8)
    assert th.equal(policy.action_net.bias[1], head)


def test_there_is_a_step_in_some_minibatches_only(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr(Imitation, "_step", lambda self: steps.append(number))
    imitation = Imitation(make_policy(GAUSSIAN), [Lesson(0, make_trajectory(GAUSSIAN), False)], batch_size=8)
    for number in range(2 * EVERY + 1):  # noqa: B007
        imitation.after_minibatch()
    imitation.finish()  # nothing to win back where actions are not countable
    assert steps == [0, EVERY, 2 * EVERY]


def test_actions_that_are_taken_often_enough_are_left_to_exploration() -> None:
    policy = make_policy(CATEGORICAL)
    certain = float(np.log(27.5))  # 27.5 / 30.5 > 0.9
    give_constant_heads(policy, [[0.0] * 4, [0.0, certain, 0.0, 0.0], [0.0] * 4])
    trajectory = all_alike(make_trajectory(CATEGORICAL), 1.0)
    assert LEARNED < float(log_probs(policy, trajectory, 1)[0]) < LEARNED + 0.01
    before = snapshot(policy)
    imitation = Imitation(policy, [Lesson(1, trajectory, False)], batch_size=16)
    imitation.after_minibatch()
    assert not changed(policy, before)
    # A little less, and it is not enough
    give_constant_heads(policy, [[0.0] * 4, [0.0, certain - 0.1, 0.0, 0.0], [0.0] * 4])
    before = snapshot(policy)
    Imitation(policy, [Lesson(1, trajectory, False)], batch_size=16).after_minibatch()
    assert "action_net.bias" in changed(policy, before)


@pytest.mark.parametrize("name", COUNTABLE)
def test_countable_actions_are_won_back_in_the_end(name: str) -> None:
    action_space = COUNTABLE[name]
    policy = make_policy(action_space, rate=1e-2)
    lessons = [Lesson(j, make_trajectory(action_space, 6 + j), False) for j in (0, 2)]
    for _ in range(4):  # as many updates, each of which leaves a little to learn
        Imitation(policy, lessons, batch_size=32).finish()

    def agree() -> list[bool]:
        return [np.array_equal(modes(policy, one.trajectory, one.representative), one.trajectory.actions) for one in lessons]

    assert agree() == [True, True]
    # Nothing to win back: nothing happens
    before, state = snapshot(policy), np.random.get_state()[2]
    Imitation(policy, lessons, batch_size=32).finish()
    assert not changed(policy, before) and np.random.get_state()[2] == state
    with th.no_grad():
        for parameter in policy.action_net.parameters():
            parameter.neg_()  # modes become what was least probable
    assert agree() != [True, True]
    Imitation(policy, lessons, batch_size=32).finish()
    assert agree() == [True, True]


@pytest.mark.parametrize("observation_space", [BOX, DICT], ids=["vectors", "dict"])
def test_detours_are_practised_beside_lessons(observation_space: spaces.Space) -> None:
    policy = make_policy(CATEGORICAL, observation_space=observation_space, rate=1e-2)
    everything = make_trajectory(CATEGORICAL, 24, observation_space)
    way, detours = everything.steps(range(12)), everything.steps(range(12, 24))
    lesson, other = Lesson(1, way, False, detours), Lesson(2, way, False)
    before = float(log_probs(policy, detours, 1).mean())
    imitation = Imitation(policy, [lesson, other], batch_size=32)
    for _ in range(150 * EVERY):
        imitation.after_minibatch()
    for trajectory, representative in ((way, 1), (way, 2), (detours, 1)):
        assert float(log_probs(policy, trajectory, representative).min()) > np.log(0.7) > before
    assert float(log_probs(policy, detours, 2).min()) < np.log(0.7)


def test_a_step_takes_as_many_rows_of_every_lesson_and_twice_as_many_of_detours(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy(CATEGORICAL)
    everything = make_trajectory(CATEGORICAL, 24)
    first, second, detours = everything.steps(range(5)), everything.steps(range(5, 14)), everything.steps(range(14, 24))
    position = {key: step for step, key in enumerate(everything.observation_keys())}
    taken: list[tuple[int, int]] = []
    distribution = policy.get_distribution

    def watched(observations: th.Tensor, representatives: th.Tensor) -> Any:
        where = [position[row.numpy().tobytes()] for row in observations]
        taken.extend(zip(representatives.tolist(), where, strict=True))
        return distribution(observations, representatives)

    monkeypatch.setattr(policy, "get_distribution", watched)
    Imitation(policy, [Lesson(1, first, False), Lesson(2, second, False, detours)], batch_size=200).after_minibatch()
    assert {step for who, step in taken if who == 1} == set(range(5))
    assert {step for who, step in taken if who == 2} == set(range(5, 24))
    of_lessons = [sum(who == 1 for who, _ in taken), sum(who == 2 and step < 14 for who, step in taken)]
    assert of_lessons == [200, 200] and len(taken) == 800


def test_detours_need_not_be_mastered() -> None:
    policy = make_policy(CATEGORICAL, rate=1e-2)
    give_constant_heads(policy, [[0.0] * 4, [0.0, 0.0, 0.0, 1.0], [0.0] * 4])
    way, before = all_alike(make_trajectory(CATEGORICAL), 3.0), snapshot(policy)
    Imitation(policy, [Lesson(1, way, False, all_alike(way, 1.0))], batch_size=8).finish()
    assert not changed(policy, before)
    Imitation(policy, [Lesson(1, all_alike(way, 1.0), False, way)], batch_size=8).finish()
    assert changed(policy, before)


# Those who begin anew


@pytest.mark.parametrize("action_space", [GAUSSIAN, CATEGORICAL], ids=["gaussian", "discrete"])
def test_who_begins_anew_becomes_the_one_that_acts_most_alike(action_space: spaces.Space) -> None:
    policy = make_policy(action_space)
    trajectory = make_trajectory(action_space)
    trajectory = trajectory._replace(actions=modes(policy, trajectory, 2).astype(np.float32))
    if hasattr(policy, "log_std"):
        with th.no_grad():
            policy.log_std.copy_(th.tensor([[-1.0, -1.0], [-3.0, -3.0], [-5.0, -0.5]]))
    before = snapshot(policy)
    imitation = Imitation(policy, [Lesson(0, trajectory, True)], batch_size=8)
    imitation.after_minibatch()
    assert not changed(policy, before)
    imitation.finish()
    np.testing.assert_allclose(modes(policy, trajectory, 0), modes(policy, trajectory, 2), rtol=1e-5, atol=1e-6)
    own = {"action_net.weight", "action_net.bias", "mlp_extractor.shift", "log_std"} & before.keys()
    assert changed(policy, before) <= own
    for name in own - {"log_std"}:
        assert th.equal(dict(policy.named_parameters())[name], before[name][[2, 1, 2]])
    if hasattr(policy, "log_std"):
        # It explores, also if the other has stopped to; the others as before
        found = policy.log_std.detach().numpy()
        np.testing.assert_allclose(found[0], [np.log(LEAST_STD), -0.5], rtol=1e-6)
        np.testing.assert_array_equal(found[1:], before["log_std"][1:].numpy())


def test_who_begins_anew_copies_what_another_has_learned_in_the_same_update() -> None:
    policy = make_policy(CATEGORICAL, rate=1e-2)
    trajectory = make_trajectory(CATEGORICAL, 6)
    lessons = [Lesson(1, trajectory, False), Lesson(0, trajectory, True)]
    for _ in range(3):
        Imitation(policy, lessons, batch_size=32).finish()
    np.testing.assert_array_equal(modes(policy, trajectory, 1), trajectory.actions)
    np.testing.assert_array_equal(modes(policy, trajectory, 0), trajectory.actions)


def test_without_lessons_nothing_happens() -> None:
    policy = make_policy(GAUSSIAN)
    before = snapshot(policy)
    np.random.seed(0)
    th.manual_seed(0)
    numpy_state, torch_state = np.random.get_state()[1:3], th.get_rng_state()
    imitation = Imitation(policy, [], batch_size=8)
    for _ in range(2 * EVERY):
        imitation.after_minibatch()
    imitation.finish()
    assert not changed(policy, before)
    assert np.random.get_state()[2] == numpy_state[1] and np.array_equal(np.random.get_state()[1], numpy_state[0])
    assert th.equal(th.get_rng_state(), torch_state)
    assert all(parameter.grad is None for parameter in policy.parameters())


@pytest.mark.parametrize("frozen", ["action_net.weight", "action_net.bias", "mlp_extractor.shift", "log_std"])
@pytest.mark.parametrize("new", [False, True])
def test_lessons_and_copies_leave_frozen_parameters_alone(frozen: str, new: bool) -> None:
    policy = make_policy(GAUSSIAN)
    with th.no_grad():
        for parameter in policy.parameters():
            parameter.add_(th.randn_like(parameter))
        policy.log_std.sub_(5.0)
    policy.get_parameter(frozen).requires_grad_(False)
    before = snapshot(policy)
    give = make_trajectory(GAUSSIAN)
    other = (most_alike(policy, give) + 1) % policy.k
    imitation = Imitation(policy, [Lesson(other, give, new)], batch_size=4)
    imitation.after_minibatch()
    imitation.finish()
    found = changed(policy, before)
    assert frozen not in found
    # A lesson changes what means depend on, a copy all that representatives have of their own
    assert found >= {"action_net.weight", "action_net.bias", *(["mlp_extractor.shift", "log_std"] if new else [])} - {frozen}


def test_lessons_of_a_policy_whose_actors_are_frozen() -> None:
    policy = make_policy(CATEGORICAL)
    for parameter in policy.actor_parameters():
        parameter.requires_grad_(False)
    before = snapshot(policy)
    imitation = Imitation(policy, [Lesson(0, make_trajectory(CATEGORICAL), False)], batch_size=4)
    imitation.after_minibatch()
    imitation.finish()
    assert not changed(policy, before)


def test_all_that_an_optimizer_remembers_goes_with_a_copy() -> None:
    policy = make_policy(GAUSSIAN)
    weight = policy.action_net.weight
    for optimizer in (th.optim.Adam([weight], amsgrad=True), th.optim.SGD([weight], lr=0.1, momentum=0.9)):
        policy.optimizer = optimizer
        weight.grad = th.randn_like(weight)
        optimizer.step()
        copy_representative(policy, 0, 1)
        moments = [value for value in optimizer.state[weight].values() if value.shape == weight.shape]
        assert moments and all(th.equal(moment[0], moment[1]) for moment in moments)


def test_lessons_of_log_probabilities_that_are_no_numbers_are_no_numbers() -> None:
    """They must not pass for probable enough."""
    policy = make_policy(CATEGORICAL)
    trajectory = make_trajectory(CATEGORICAL)

    class Broken:
        def log_prob(self, actions: th.Tensor) -> th.Tensor:
            return policy.action_net.weight.square().sum() * th.full((len(actions),), th.nan)

    policy.get_distribution = lambda *args: Broken()  # type: ignore
    Imitation(policy, [Lesson(0, trajectory, False)], batch_size=4).after_minibatch()
    assert bool(policy.action_net.weight.isnan().all())
