"""Assignment by the best episodes: who aims at what, and who goes where."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from sb3_rmdp.common.assignment import EMAssignment, EpisodeAssignment, episodes
from tests.common.told import QUICK, Told, aims, lessons, play, tell


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("seed", range(10))
def test_it_ends_at_the_best_of_all_sets_of_episodes(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(1, 100, size=(8, 12)) * (rng.random((8, 12)) < 0.4)
    first = rng.integers(0, 5, size=(k, 12))
    pays = np.concatenate([table, first]).astype(float)
    best = max(float(pays[list(chosen)].max(axis=0).sum()) for chosen in combinations(range(8 + k), k))
    assignment = EpisodeAssignment(12, k, patience=2, exploration=0.0, **QUICK)
    doing = [float(8 + j) for j in range(k)]
    # Everything is seen once, by accident
    tell(assignment, [(e % k, pays[e], float(e)) for e in range(8)] + [(j, pays[8 + j], doing[j]) for j in range(k)])
    play(assignment, doing, lambda action: pays[int(action)], 12)
    served = pays[[int(action) for action in doing]]
    assert served.max(axis=0).sum() == best
    assert served[assignment.representatives, np.arange(12)].sum() == best
    assert lessons(assignment) == []


def test_a_representative_is_sent_far_away_and_its_agents_go_with_it() -> None:
    assignment = EpisodeAssignment(4, 2, patience=7, **QUICK)
    # Both do much the same; an accident shows what nobody does
    tell(assignment, [(0, [5, 5, 0, 0], 0.0), (1, [4, 4, 0, 0], 1.0), (1, [0, 0, 3, 3], 2.0)])
    assert aims(assignment) == [None, None]  # it is not yet time
    tell(assignment, [(0, [5, 5, 0, 0], 0.0), (1, [4, 4, 0, 0], 1.0)])
    assert aims(assignment) == [None, 2.0] and assignment.time_left.tolist() == [0, 7]
    assert assignment.representatives.tolist() == [0, 0, 1, 1]
    assert lessons(assignment) == [(1, 2.0, True)]
    # What it paid as somebody else counts no more
    assert assignment.q[:, 1].tolist() == [0.0] * 4 and assignment.q_weight.tolist() == [1.0, 0.0]
    # It is not sent a second time, but goes on learning
    tell(assignment, [(0, [5, 5, 0, 0], 0.0), (1, [0, 0, 1, 1], 3.0)])
    assert lessons(assignment) == [(1, 2.0, False)] and assignment.time_left.tolist() == [0, 6]
    assert assignment.representatives.tolist() == [0, 0, 1, 1]


def test_who_reached_its_aim_has_no_more_lessons() -> None:
    assignment = EpisodeAssignment(4, 2, patience=9, **QUICK)
    others: Told = (0, [5, 5, 0, 0], 0.0)
    tell(assignment, [others, (1, [4, 4, 0, 0], 1.0), (1, [0, 0, 3, 3], 2.0)])
    tell(assignment, [others, (1, [4, 4, 0, 0], 1.0)])
    tell(assignment, [others, (1, [0, 0, 3, 2], 3.0)])
    assert lessons(assignment) == [(1, 2.0, False)]
    tell(assignment, [others, (1, [0, 0, 3, 3], 2.0)])
    assert lessons(assignment) == []
    # Worse again: there is more to learn
    tell(assignment, [others, (1, [0, 0, 2, 3], 4.0)], progress=1.0)
    assert lessons(assignment) == [(1, 2.0, False)]
    # Better than the episode: judged by what it does
    tell(assignment, [others, (1, [0, 0, 4, 3], 5.0)], progress=1.0)
    assert aims(assignment) == [None, None] and lessons(assignment) == []


def test_who_does_something_like_it_goes_there() -> None:
    assignment = EpisodeAssignment(6, 2, **QUICK)
    own: list[Told] = [(0, [2, 2, 0, 0, 0, 0], 0.0), (1, [0, 0, 0, 2, 2, 0], 1.0)]
    tell(assignment, [*own, (0, [0, 0, 0, 5, 5, 1], 2.0), (1, [5, 5, 1, 0, 0, 0], 3.0)])
    tell(assignment, own, progress=1.0)
    assert aims(assignment) == [3.0, 2.0] and assignment.time_left.tolist() == [0, 0]
    assert lessons(assignment) == [(0, 3.0, False), (1, 2.0, False)]
    # What it knows of itself it keeps
    assert assignment.q.t().tolist() == [own[0][1], own[1][1]]


def test_places_go_to_whom_they_suit_in_whatever_order_swaps_find_them() -> None:
    assignment = EpisodeAssignment(4, 2, **QUICK)
    own: list[Told] = [(0, [1, 0, 0, 1], 0.0), (1, [0, 0, 4, 4], 1.0)]
    # The first swap puts episode 2 in the place of 0, which is of least use; it is 1 that does something like it
    tell(assignment, [*own, (0, [0, 0, 9, 0], 2.0), (1, [3, 0, 0, 5], 3.0)])
    tell(assignment, own)
    assert aims(assignment) == [3.0, 2.0] and assignment.time_left.tolist() == [0, 0]


@pytest.mark.parametrize("countable, expected", [(False, [0, 1, 1, 1]), (True, [0, 0, 1, 1])])
def test_agents_count_on_an_aim_and_on_what_is_done_now_if_that_lasts(countable: bool, expected: list[int]) -> None:
    assignment = EpisodeAssignment(4, 2, patience=9, **QUICK)
    others: Told = (0, [5, 5, 0, 2], 0.0)
    tell(assignment, [others, (1, [4, 4, 0, 0], 1.0), (1, [0, 0, 9, 3], 2.0)], countable=countable)
    tell(assignment, [others, (1, [4, 4, 0, 0], 1.0)], countable=countable)
    assert assignment.representatives.tolist() == [0, 0, 1, 1]
    # On the way it does something for agent 1, and does nothing yet for agent 3
    tell(assignment, [others, (1, [0, 6, 1, 0], 3.0)], countable=countable)
    assert aims(assignment) == [None, 2.0] and assignment.representatives.tolist() == expected


def test_who_comes_for_what_is_done_now_keeps_nobody_from_what_is_better() -> None:
    pays = {0.0: [5, 5, 0, 0], 1.0: [0, 4, 6, 6], 2.0: [7, 0, 0, 0]}
    assignment = EpisodeAssignment(4, 2, **QUICK)
    tell(assignment, [(0, pays[0.0], 0.0), (1, pays[1.0], 1.0), (0, pays[2.0], 2.0)])
    # With 2 in the place of 0 agent 1 has less, and all have more. As long as it went with 0, that group would lose by it
    doing = [0.0, 1.0]
    play(assignment, doing, pays.__getitem__, 2)
    assert doing == [2.0, 1.0] and assignment.representatives.tolist() == [0, 1, 1, 1]


def test_nobody_is_counted_both_where_it_is_and_where_it_goes() -> None:
    assignment = EpisodeAssignment(6, 2, patience=9, **QUICK)
    own: list[Told] = [(0, [5, 4, 0, 0, 0, 0], 0.0), (1, [0, 0, 4, 4, 0, 0], 1.0)]
    tell(assignment, [*own, (1, [0, 0, 0, 3, 6, 6], 2.0)])
    tell(assignment, own)
    assert aims(assignment) == [None, 2.0]
    # On the way 1 still serves agents 2 and 3, whom it is about to leave: better who stays with them than with 0 and 1
    tell(assignment, [*own, (0, [0, 0, 8, 8, 0, 0], 3.0)])
    assert aims(assignment) == [3.0, 2.0]


def test_a_full_archive_keeps_what_is_best_for_somebody() -> None:
    assignment = EpisodeAssignment(4, 2, archive_size=4, **QUICK)
    alike: list[Told] = [(0, [9, 8, 0, 0], 0.0), (0, [8.5, 8.5, 0, 0], 1.0), (0, [8, 9, 0, 0], 2.0)]
    # Nobody is sent to agent 3, for whom less can be done than for those who would have to be left
    for _ in range(3):
        tell(assignment, [*alike, (1, [0, 0, 9, 0], 3.0), (1, [0, 0, 0, 1], 4.0)])
    kept = [episode.returns.tolist() for episode in assignment.archive.episodes]
    assert kept == [[9, 8, 0, 0], [8, 9, 0, 0], [0, 0, 9, 0], [0, 0, 0, 1]]


def test_memory_is_bounded_before_the_first_reassignment() -> None:
    """Which may be never, if a representative does not finish an episode."""
    rng = np.random.default_rng(0)
    for warm_start, who in ((100, 2), (1, 1)):
        assignment = EpisodeAssignment(6, 2, warm_start=warm_start, archive_size=4)
        for rollout in range(20):
            told = [(j, rng.normal(size=6), float(10 * rollout + 5 * j + i)) for j in range(who) for i in range(5)]
            tell(assignment, told, progress=rollout / 20)
            assert len(assignment.archive) <= 4
        assert assignment.representatives.tolist() == [0, 1] * 3


def test_a_move_has_to_be_worth_the_wait() -> None:
    for move_cost, expected in ((0.0, 2.0), (0.2, 2.0), (0.3, None), (1.0, None)):
        assignment = EpisodeAssignment(4, 2, mixing=1.0, warm_start=1, move_cost=move_cost)
        own: list[Told] = [(0, [9, 0, 0, 0], 0.0), (1, [0, 4, 0, 0], 1.0)]
        # In the place of 1 it gains 1, and 1's agents would lose 4 in the meantime
        tell(assignment, [*own, (0, [0, 0, 5, 0], 2.0)], countable=False)
        tell(assignment, own, countable=False)
        assert aims(assignment) == [None, expected]
    # What can be done again at once is not waited for
    assignment = EpisodeAssignment(4, 2, mixing=1.0, warm_start=1, move_cost=1.0)
    tell(assignment, [*own, (0, [0, 0, 5, 0], 2.0)])
    tell(assignment, own)
    assert aims(assignment) == [None, 2.0]


def test_without_better_episodes_it_is_greedy_on_returns() -> None:
    rng = np.random.default_rng(0)
    for case in range(10):
        ours, em = EpisodeAssignment(30, 4, mixing=0.4, warm_start=2), EMAssignment(30, 4, mixing=0.4, warm_start=2)
        # While there are promises returns are not to be negative
        progress = 0.5 if case % 2 else 0.6
        returns = rng.normal(size=(4, 30)) + (5.0 if case % 2 else 0.0)
        for rollout in range(6):
            for j in range(4):
                em.record_episodes(np.array([j]), returns[[j]])
            em.update(progress)
            tell(ours, [(j, returns[j], float(j)) for j in range(4)], progress)
            np.testing.assert_array_equal(ours.representatives, em.representatives)
            assert aims(ours) == [None] * 4 and lessons(ours) == []
            assert rollout < 2 or set(ours.representatives) == {0, 1, 2, 3}
        assert (ours.representatives != np.arange(30) % 4).any()


@pytest.mark.parametrize(("n_agents", "k"), [(5, 3), (4, 4), (1, 1)])
def test_nobody_is_left_without_agents(n_agents: int, k: int) -> None:
    """One episode is better than all others for everybody."""
    assignment = EpisodeAssignment(n_agents, k, **QUICK)
    for rollout in range(8):
        tell(assignment, [(j, np.full(n_agents, 1.0 + j), float(j)) for j in range(k)], progress=rollout / 8)
        assert set(assignment.representatives) == set(range(k))


def test_random_rollouts_leave_nobody_without_agents_and_memory_bounded() -> None:
    rng = np.random.default_rng(0)
    assignment = EpisodeAssignment(7, 4, archive_size=5, patience=2, warm_start=0)
    n_lessons = 0
    for rollout in range(60):
        told = [
            (int(j), rng.normal(size=7) * [9, 1, 1, 1, 1, 0, -1], float(rng.integers(50))) for j in rng.integers(4, size=9)
        ]
        tell(assignment, told, progress=rollout / 60)
        assert set(assignment.representatives) == {0, 1, 2, 3}
        assert len({one.representative for one in assignment.lessons()}) == len(assignment.lessons())
        n_lessons += len(assignment.lessons())
        if (assignment.n_updates > 0) and rollout > 5:
            assert len(assignment.archive) <= 5
    assert n_lessons > 10


def test_nothing_happens_before_everybody_is_known() -> None:
    assignment = EpisodeAssignment(4, 2, **QUICK)
    for _ in range(4):
        tell(assignment, [(0, [0, 5, 5, 5], 0.0)])
        assert assignment.representatives.tolist() == [0, 1, 0, 1] and lessons(assignment) == []
    tell(assignment, [])
    assert len(assignment.archive) == 1
    tell(assignment, [(1, [4, 0, 0, 0], 1.0)])
    assert assignment.representatives.tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("k", "n_agents", "expected"), [(3, 25, 10), (5, 1000, 10), (20, 1000, 2), (50, 1000, 1), (50, 50_000, 1)]
)
def test_fewer_sets_are_searched_from_where_each_search_takes_longer(
    k: int, n_agents: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def searches(utilities: np.ndarray, costs: np.ndarray, restarts: int, random: np.random.Generator) -> list[np.ndarray]:
        asked.append(restarts)
        return [np.arange(k)]

    monkeypatch.setattr(episodes, "searches", searches)
    assignment = EpisodeAssignment(n_agents, k, seed=0, warm_start=0)
    pays = np.random.default_rng(0).random((k, n_agents))
    tell(assignment, [(j, pays[j], float(j)) for j in range(k)])
    assert asked == [expected]
