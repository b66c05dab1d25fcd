"""Assignment by the best episodes: who is taught what; agents, many or few; what is saved."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_rmdp.common.agent_weights import AgentWeights
from sb3_rmdp.common.assignment import EpisodeAssignment, make_assignment
from tests.common.told import NEAR, QUICK, STRAY, WALKS, Told, aims, lessons, near, obey, tell, with_a_stray

# Lessons


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("k", [1, 2])
def test_what_cannot_be_repeated_is_learned_only_far_away(k: int, progress: float) -> None:
    assert lessons(near(k, progress, countable=False)) == []
    assignment = EpisodeAssignment(4, k, patience=1, **QUICK)
    own: list[Told] = [(0, [2, 2, 0, 0], 0.0), (1, [1, 1, 0, 0], 1.0)][:k]
    tell(assignment, [*own, (0, [0, 0, 9, 9], 2.0)], progress, countable=False)
    tell(assignment, own, progress, countable=False)
    # At the end nothing is left of the training to learn it in
    assert lessons(assignment) == ([(k - 1, 2.0, True)] if progress < 1.0 else [])


@pytest.mark.parametrize("countable", [False, True])
@pytest.mark.parametrize(("needed", "goes"), [(6, True), (17, True), (18, False), (30, False)])
def test_nobody_is_sent_far_away_who_would_not_arrive(needed: int, goes: bool, countable: bool) -> None:
    time = dict(stagnation=needed) if countable else dict(patience=needed)
    assignment = EpisodeAssignment(4, 2, **(QUICK | time))
    own: list[Told] = [(0, [9, 9, 0, 0], 0.0), (1, [0.01, 0.01, 0, 0], 1.0)]
    tell(assignment, [*own, (0, [0, 0, 9, 9], 2.0)], 0.1, countable=countable)
    # After two rollouts, a tenth of the training, 18 are left
    tell(assignment, own, 0.1, countable=countable)
    assert aims(assignment) == [None, 2.0 if goes else None]
    assert lessons(assignment) == ([(1, 2.0, True)] if goes else [])


@pytest.mark.parametrize(("gain", "goes"), [(0.9, False), (1.1, True)])
def test_a_move_has_to_pay_until_the_end(gain: float, goes: bool) -> None:
    assignment = EpisodeAssignment(3, 2, patience=6, **QUICK)
    own: list[Told] = [(0, [2.0, 0.0, 0.0], 0.0), (1, [0.0, 0.0, 9.0], 1.0)]
    tell(assignment, [*own, (0, [0.0, 2.0 + gain, 0.0], 2.0)], 0.1, countable=False)
    # After two rollouts, a tenth of the training, 18 are left: 6 without the 2 that it has, and 12 with the gain
    tell(assignment, own, 0.1, countable=False)
    assert (2.0 * 6 < gain * 12) is goes
    assert aims(assignment) == [2.0 if goes else None, None]


def test_luck_near_by_is_not_held_against_an_episode() -> None:
    assignment = EpisodeAssignment(4, 2, patience=2, **QUICK)
    own: list[Told] = [(0, [2, 2, 0, 0], 0.0), (1, [0, 0, 3, 3], 1.0)]
    tell(assignment, [*own, (0, [9, 9, 0, 0], 2.0)], countable=False)
    for _ in range(8):
        tell(assignment, own, countable=False)
        assert aims(assignment) == [2.0, None] and len(assignment.archive) == 2


@pytest.mark.parametrize(
    ("progress", "countable", "expected"),
    [(0.0, False, 0), (0.0, True, 0), (1.0, True, 0), (1.0, False, 1)],
)
def test_who_cannot_repeat_its_luck_is_judged_by_what_it_does(progress: float, countable: bool, expected: int) -> None:
    assignment = EpisodeAssignment(4, 2, **QUICK)
    own: list[Told] = [(0, [5, 5, 0, 1], 0.0), (1, [0, 0, 5, 2], 1.0)]
    tell(assignment, [*own, (0, [6, 6, 0, 4], 2.0)], countable=countable)
    tell(assignment, own, countable=countable)
    assert aims(assignment) == [2.0, None] and assignment.representatives[3] == 0
    tell(assignment, own, progress, countable=countable)
    assert assignment.representatives.tolist() == [0, 0, 1, expected]


@pytest.mark.parametrize("k", [1, 2])
def test_what_can_be_repeated_is_learned_by_heart(k: int) -> None:
    assert lessons(near(k, 0.0, countable=True)) == lessons(near(k, 1.0, countable=True)) == [(0, 2.0, False)]


def test_who_gets_better_learns_by_itself() -> None:
    assignment = EpisodeAssignment(2, 1, **(QUICK | dict(stagnation=3)))
    # The first episode beside these paid 100
    pays = [10.0, 10.1, 10.2, 10.0, 10.21, 10.22, 10.2, 10.9, 11.0, 90.0, 99.0, 101.0, 80.0, 101.5, 80.0, 80.0, 80.0]
    taught = []
    for rollout, paid in enumerate(pays):
        lucky: list[Told] = [(0, [50.0, 50.0], 99.0)] if rollout == 0 else []
        tell(assignment, [*lucky, (0, [paid / 2, paid / 2], float(rollout))])
        taught.append(len(lessons(assignment)))
    # A gain of one per mille is none, and whoever imitates goes on until it is there, or has done better by itself
    assert taught == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1]


# Detours

#: What is observed in episodes of an action: from 0 on, two ways and what leads away from them
SEEN = {2.0: [0, 1, 2], 3.0: [0, 1, 5], 4.0: [0, 6, 7], 5.0: [0, 6, 8]}


def practised(assignment: EpisodeAssignment) -> list[dict[float, float] | None]:
    """What each lesson has beside its episode: actions by what is observed."""
    found = []
    for lesson in assignment.lessons():
        steps = lesson.detours
        assert steps is None or isinstance(steps.observations, np.ndarray)
        found.append(steps and dict(zip(steps.observations[:, 0].tolist(), steps.actions[:, 0].tolist(), strict=True)))
    return found


@pytest.mark.parametrize(
    ("count", "first", "second"),
    [
        (32, {5.0: 3, 6.0: 4, 7.0: 4, 8.0: 5}, {1.0: 3, 5.0: 3, 2.0: 2, 8.0: 5}),
        # Its own is the first of them
        (3, {5.0: 3, 6.0: 4, 7.0: 4}, {8.0: 5, 1.0: 3, 5.0: 3}),
        (2, {5.0: 3}, {8.0: 5}),
        (1, None, None),
        (0, None, None),
    ],
)
def test_good_episodes_of_its_agents_are_practised_off_its_way(
    count: int, first: dict[float, float] | None, second: dict[float, float] | None
) -> None:
    assignment = EpisodeAssignment(4, 2, detours=count, **QUICK)
    own: list[Told] = [(0, [2, 2, 0, 0], 0.0), (1, [0, 0, 2, 2], 1.0)]
    others: list[Told] = [(0, [9, 9, 0, 0], 2.0), (0, [8, 8, 1, 2], 3.0), (1, [0, 1, 9, 9], 4.0), (1, [1, 0, 8, 8], 5.0)]
    tell(assignment, [*own, *others], seen=SEEN)
    tell(assignment, own)
    assert lessons(assignment) == [(0, 2.0, False), (1, 4.0, False)]
    assert practised(assignment) == [first, second]


def test_nobody_practises_where_no_episode_can_be_repeated() -> None:
    assignment = EpisodeAssignment(4, 2, patience=3, **QUICK)
    own: list[Told] = [(0, [2, 2, 0, 0], 0.0), (1, [1, 1, 0, 0], 1.0)]
    tell(assignment, [*own, (0, [0, 0, 9, 9], 2.0), (0, [0, 0, 8, 9.5], 3.0)], seen=SEEN, countable=False)
    for _ in range(2):
        tell(assignment, own, countable=False)
        assert practised(assignment) == [None]


def test_who_learns_by_itself_practises_nothing() -> None:
    assignment = EpisodeAssignment(2, 1, **(QUICK | dict(stagnation=2)))
    tell(assignment, [(0, [2, 2], 0.0), (0, [9, 9], 2.0), (0, [8, 10], 3.0), (0, [10, 7], 4.0)], seen=SEEN)
    found = []
    for _ in range(4):
        tell(assignment, [(0, [2, 2], 0.0)])
        found.append(practised(assignment))
    assert found == [[], [], [{5.0: 3, 6.0: 4, 7.0: 4}]] + found[3:] and found[3] == found[2]


# Sideways


def goes_over(
    kwargs: dict[str, Any], others: list[Told], n_rollouts: int = 12, progress: float = 0.0, countable: bool = True
) -> list[list[float | None]]:
    """Aims after every rollout, of two representatives that get no further than 2, where 9 has been paid."""
    assignment = EpisodeAssignment(4, 2, **(QUICK | kwargs))
    own: list[Told] = [(0, [2, 2, 0, 0], 0.0), (1, [0, 0, 2, 2], 1.0)]
    tell(assignment, [*own, (0, [9, 9, 0, 0], 2.0), (1, [0, 0, 9, 9], 3.0)], countable=countable)
    tell(assignment, own, countable=countable)
    assert aims(assignment) == [2.0, 3.0]
    tell(assignment, [*own, *others], progress, countable=countable)
    seen = [aims(assignment)]
    for _ in range(n_rollouts):
        tell(assignment, own, progress, countable=countable)
        seen.append(aims(assignment))
    return seen


@pytest.mark.parametrize("sideways", [1, 2, 3])
@pytest.mark.parametrize("returns", [[9, 9, 0, 0], [10, 8, 0, 0], [8.5, 9.5, 0, 0]])
def test_who_gets_no_further_goes_over_to_what_is_worth_as_much(returns: list[float], sideways: int) -> None:
    seen = goes_over({"sideways": sideways}, [(0, returns, 4.0)])
    assert {second for _, second in seen} == {3.0}
    firsts = [first for first, _ in seen]
    assert set(firsts) == {2.0, 4.0}
    if returns == [9, 9, 0, 0]:
        # The newer one is the one that is remembered: there is no way back
        assert firsts == sorted(firsts) and firsts.index(4.0) == sideways + 1
    else:
        changes = np.flatnonzero(np.diff(firsts))
        assert (np.diff(changes) == sideways).all() and len(changes) >= 12 // sideways - 1


@pytest.mark.parametrize(
    ("kwargs", "returns"),
    [
        ({"sideways": 0}, [9, 9, 0, 0]),
        ({"sideways": 1, "exploration": 0.0}, [9, 9, 0, 0]),
        # Somewhat less; less to both of its agents together; and who does not imitate yet
        ({"sideways": 1}, [9, 8.99, 0, 0]),
        ({"sideways": 1}, [17.9, 0, 0, 0]),
        ({"sideways": 1, "stagnation": 50}, [9, 9, 0, 0]),
    ],
)
def test_who_has_something_to_lose_stays(kwargs: dict[str, Any], returns: list[float]) -> None:
    assert goes_over(kwargs, [(0, returns, 4.0)]) == [[2.0, 3.0]] * 13


@pytest.mark.parametrize(("progress", "goes"), [(0.0, True), (0.59, True), (0.61, False), (1.0, False)])
def test_nobody_goes_over_in_the_end(progress: float, goes: bool) -> None:
    seen = goes_over({"sideways": 1}, [(0, [9, 9, 0, 0], 4.0)], progress=progress)
    assert seen[-1] == [4.0 if goes else 2.0, 3.0]


def test_nobody_goes_over_to_what_cannot_be_repeated_or_is_another_place() -> None:
    assert goes_over({"sideways": 1}, [(0, [9, 9, 0, 0], 4.0)], countable=False) == [[2.0, 3.0]] * 13
    # As good as both together, for the agents of one and of the other
    assert goes_over({"sideways": 1}, [(0, [9, 0, 9, 0], 4.0)]) == [[2.0, 3.0]] * 13


def test_what_is_worth_as_much_is_no_gain_but_what_is_worth_more_is_taken_at_once() -> None:
    seen = goes_over({"sideways": 1}, [(0, [9, 9, 0, 0], 4.0), (0, [9, 9.01, 0, 0], 5.0)])
    assert seen == [[5.0, 3.0]] * 13


# Agents, many or few


def both_ways(told: list[Told], weights: np.ndarray) -> list[Told]:
    return [(j, np.asarray(returns) @ weights.T, action) for j, returns, action in told]


@pytest.mark.parametrize("seed", range(3))
def test_told_by_features_it_does_as_told_by_agents(seed: int) -> None:
    """Multiples of 1/64, so that sums are exact, and too many of them for ties, which rounding would decide elsewhere."""
    rng = np.random.default_rng(seed)
    n_agents, n_features, k = 200, 5, 3
    weights = rng.integers(-128, 576, size=(n_agents, n_features)) / 64 * (rng.random((n_agents, n_features)) < 0.4)
    weights = weights.astype(np.float32)
    kwargs: dict[str, Any] = dict(mixing=1.0, warm_start=2, patience=3, archive_size=6)
    few, many = EpisodeAssignment(n_agents, k, **kwargs), EpisodeAssignment(n_agents, k, **kwargs)
    few.connect(AgentWeights(n_agents, th.as_tensor(weights)), AgentWeights(n_agents, th.as_tensor(weights)))
    seen: set[Any] = set()
    for rollout in range(30):
        told, steps, steps_of_agents = [], {}, {}
        for i in range(6):
            action = float(10 * rollout + i)
            steps[action] = rng.integers(0, 3, size=(4, n_features)) * (rng.random(n_features) < 0.5)
            steps_of_agents[action] = steps[action] @ weights.T
            told.append((i % k, steps[action].sum(axis=0), action))
        tell(few, told, rollout / 30, steps)
        tell(many, both_ways(told, weights), rollout / 30, steps_of_agents)
        np.testing.assert_array_equal(few.representatives, many.representatives)
        assert aims(few) == aims(many) and lessons(few) == lessons(many)
        assert few.time_left.tolist() == many.time_left.tolist() and len(few.archive) == len(many.archive)
        assert few._best_moment == many._best_moment
        seen.add(tuple(aims(few)))
    assert len(seen) >= 3 and few.q_table.shape == (n_features, k)


@pytest.mark.parametrize("seed", range(4))
def test_many_agents_are_represented_by_some(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six kinds of agents, of whom 2400 are compared by 1024 or all."""
    kinds = np.arange(2400) * 6 // 2400
    partitions, compared = [], []
    for limit in (1024, 2400):
        monkeypatch.setattr("sb3_rmdp.common.assignment.episodes.COMPARED", limit)
        rng = np.random.default_rng(seed)
        pays = rng.uniform(0.0, 40.0, size=(12, 6)) * (rng.random((12, 6)) < 0.5)
        assignment = EpisodeAssignment(2400, 3, warm_start=1)
        doing = [9.0, 10.0, 11.0]
        tell(assignment, [(e % 3, pays[e][kinds], float(e)) for e in range(12)])
        for rollout in range(8):
            tell(assignment, [(j, pays[int(action)][kinds], action) for j, action in enumerate(doing)], rollout / 8)
            obey(assignment, doing)
        partitions.append(assignment.representatives)
        compared.append([len(one.utilities) for one in assignment.archive.episodes])
        assert len({*zip(kinds.tolist(), partitions[-1].tolist(), strict=True)}) == 6
        assert [len(one.returns) for one in assignment.archive.episodes] == [2400] * len(assignment.archive)
    assert set(compared[0]) == {1024} and set(compared[1]) == {2400}
    np.testing.assert_array_equal(partitions[0], partitions[1])


# Files and arguments


@pytest.mark.parametrize("fallen", [False, True])
def test_what_is_saved(fallen: bool) -> None:
    assignment = with_a_stray(0.0, WALKS)
    assignment._falls = fallen
    file = io.BytesIO()
    th.save(assignment.state_dict(), file)
    file.seek(0)
    again = EpisodeAssignment(6, 2, **QUICK)
    again.load_state_dict(th.load(file, weights_only=True))
    assert aims(again) == aims(assignment) == [None, 2.0]
    assert again.time_left.tolist() == assignment.time_left.tolist() and again._best_moment == assignment._best_moment
    assert again._falls == assignment._falls == fallen
    np.testing.assert_array_equal(again.representatives, assignment.representatives)
    assert len(again.archive) == 0 and again.lessons() == []
    for name in ("returns", "utilities", "moment"):
        np.testing.assert_array_equal(getattr(again.aims[1], name), getattr(assignment.aims[1], name))
    older = assignment.get_extra_state()
    del older["falls"]
    other = EpisodeAssignment(6, 2, **QUICK)
    other.set_extra_state(older)
    assert aims(other) == [None, 2.0] and not other._falls
    # And both go on alike
    assignment.archive.episodes.clear()
    for rollout in range(5):
        for one in (assignment, again):
            tell(one, [(0, NEAR[0], 0.0), (1, rollout * STRAY, 3.0 + rollout)], 0.1 * rollout, WALKS)
        np.testing.assert_array_equal(again.representatives, assignment.representatives)
        assert aims(again) == aims(assignment) and lessons(again) == lessons(assignment)
        assert again.time_left.tolist() == assignment.time_left.tolist()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"archive_size": 0}, "archive_size=0"),
        ({"patience": 0}, "patience=0"),
        ({"patience": -3}, "patience=-3"),
        ({"restarts": -1}, "restarts=-1"),
        ({"detours": -1}, "detours=-1"),
        ({"sideways": -1}, "sideways=-1"),
        ({"stagnation": -1}, "stagnation=-1"),
        ({"move_cost": -0.1}, "move_cost=-0.1"),
        ({"move_cost": 1.5}, "move_cost=1.5"),
        ({"exploration": -1.0}, "exploration=-1.0"),
        ({"exploration": 2.0}, "exploration=2.0"),
        ({"exploration": float("nan")}, "exploration=nan"),
        ({"mixing": 0.0}, "mixing=0.0"),
        ({"warm_start": -1}, "warm_start=-1"),
        ({"size": 1}, r"\['size'\].*archive_size.*patience.*move_cost.*exploration"),
    ],
)
def test_bad_arguments(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_assignment("episodes", 4, 2, kwargs=kwargs)
