"""Assignment by the best episodes: who aims at what, who is sent where, and who is let go."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_rmdp.common.agent_weights import AgentWeights
from sb3_rmdp.common.assignment import EMAssignment, EpisodeAssignment, make_assignment
from sb3_rmdp.common.trajectories import Trajectory

QUICK: dict[str, Any] = dict(mixing=1.0, warm_start=1, move_cost=0.0, stagnation=0)

#: What a step pays is chosen with the returns; by default all of it comes at the end
Told = tuple[int, Sequence[float] | np.ndarray, float]


def trajectory(action: float, steps: Sequence[Sequence[float]] | np.ndarray, countable: bool = True) -> Trajectory:
    rewards = np.asarray(steps, dtype=np.float32)
    actions = np.full((len(rewards), 1), action, dtype=np.int64 if countable else np.float32)
    return Trajectory(np.zeros((len(rewards), 1), dtype=np.float32), actions, rewards)


def tell(
    assignment: EpisodeAssignment,
    told: Sequence[Told],
    progress: float = 0.0,
    steps: dict[float, Any] | None = None,
    countable: bool = True,
) -> None:
    """
    A rollout.

    :param told: representative, returns and action of each episode; an action stands for all that is done in an episode
    :param steps: what steps pay in episodes of an action, where it does not all come at the end
    :param countable: whether actions are
    """
    trajectories = []
    for representative, returns, action in told:
        assignment.record_episodes(np.array([representative]), np.array([returns], dtype=np.float64))
        at_the_end = [np.zeros(len(returns)), np.zeros(len(returns)), returns]
        trajectories.append(trajectory(action, (steps or {}).get(action, at_the_end), countable))
    assignment.record_trajectories(trajectories, [np.array(returns, dtype=np.float64) for _, returns, _ in told])
    assignment.update(progress)


def aims(assignment: EpisodeAssignment) -> list[float | None]:
    """Actions of the episodes that representatives aim at."""
    return [None if aim is None else float(aim.trajectory.actions[0, 0]) for aim in assignment.aims]


def lessons(assignment: EpisodeAssignment) -> list[tuple[int, float, bool]]:
    return [(one.representative, float(one.trajectory.actions[0, 0]), one.new) for one in assignment.lessons()]


def obey(assignment: EpisodeAssignment, doing: list[float]) -> None:
    """Representatives learn everything at once."""
    for representative, action, _ in lessons(assignment):
        doing[representative] = action


def play(
    assignment: EpisodeAssignment,
    doing: list[float],
    pays: Callable[[float], Any],
    n_rollouts: int,
    progress: float = 0.0,
) -> None:
    """Rollouts in which each representative does one thing once, and learns what it is told to."""
    for _ in range(n_rollouts):
        tell(assignment, [(j, pays(action), action) for j, action in enumerate(doing)], progress)
        obey(assignment, doing)


# Which episodes are chosen


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


def test_agents_count_on_what_their_representative_does_or_aims_at_whichever_is_more() -> None:
    assignment = EpisodeAssignment(4, 2, patience=9, **QUICK)
    others: Told = (0, [5, 5, 0, 2], 0.0)
    tell(assignment, [others, (1, [4, 4, 0, 0], 1.0), (1, [0, 0, 9, 3], 2.0)])
    tell(assignment, [others, (1, [4, 4, 0, 0], 1.0)])
    assert assignment.representatives.tolist() == [0, 0, 1, 1]
    # On the way it does something for agent 1, and does nothing yet for agent 3
    tell(assignment, [others, (1, [0, 6, 1, 0], 3.0)])
    assert aims(assignment) == [None, 2.0] and assignment.representatives.tolist() == [0, 1, 1, 1]


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


# Promises


NEAR = np.array([[10, 10, 0, 0, 0, 0], [0, 0, 3, 3, 0, 0]], dtype=float)
STRAY = np.array([0, 0, 0, 0, 1, 1], dtype=float)
WALKS = {0.0: [NEAR[0] / 10] * 10, 1.0: [NEAR[1] / 10] * 10, 2.0: [np.zeros(6), STRAY, np.zeros(6)]}


def with_a_stray(progress: float, walks: dict[float, Any] | None = None, **kwargs: Any) -> EpisodeAssignment:
    """The best representative keeps up ten moments; an episode had a single one of them, for agents that nobody serves."""
    assignment = EpisodeAssignment(6, 2, **(QUICK | kwargs))
    own: list[Told] = [(j, NEAR[j], float(j)) for j in range(2)]
    tell(assignment, [*own, (0, STRAY, 2.0)], progress, walks)
    tell(assignment, own, progress, walks)
    return assignment


def test_a_promise_attracts_to_agents_whom_nobody_serves() -> None:
    assignment = with_a_stray(0.0, WALKS)
    assert aims(assignment) == [None, 2.0] and lessons(assignment) == [(1, 2.0, True)]
    assert assignment.representatives.tolist() == [0, 0, 0, 1, 1, 1] or assignment.representatives[[4, 5]].tolist() == [1, 1]
    # Where the walk paid less than the policies do it promises more: it would pay ten moments
    assert with_a_stray(0.3, WALKS).representatives[[4, 5]].tolist() == [1, 1]


@pytest.mark.parametrize(("progress", "expected"), [(0.0, [0, 0, 1, 1]), (1.0, [0, 0, 1, 0])])
def test_agents_follow_a_promise_that_is_more_than_they_have(progress: float, expected: list[int]) -> None:
    stray = np.array([[0, 0, 1, 1], [0, 0, 1, 0], [0, 0, 1, 0]])
    walks = {0.0: [np.array([1, 1, 0.25, 0.25])] * 10, 1.0: [np.array([0.125, 0, 0, 0])], 2.0: stray}
    assignment = EpisodeAssignment(4, 2, **QUICK)
    own: list[Told] = [(0, [10, 10, 2.5, 2.5], 0.0), (1, [0.125, 0, 0, 0], 1.0)]
    # It paid agent 3 less than representative 0 does
    tell(assignment, [*own, (0, stray.sum(axis=0), 2.0)], progress, walks)
    tell(assignment, own, progress, walks)
    assert aims(assignment) == [None, 2.0] and assignment.representatives.tolist() == expected


@pytest.mark.parametrize(
    ("progress", "exploration", "follows"),
    [
        (0.0, 0.3, True),
        (0.3, 0.3, True),
        (0.4, 0.3, True),  # two thirds: 6.7 moments for two agents, more than 6
        (0.5, 0.3, True),  # a third: 3.3 moments for two agents
        (0.52, 0.3, False),
        (0.6, 0.3, False),
        (1.0, 0.3, False),
        (0.0, 0.0, False),
        (1.0, 1.0, True),
    ],
)
def test_promises_fade(progress: float, exploration: float, follows: bool) -> None:
    assignment = with_a_stray(progress, WALKS, exploration=exploration)
    assert aims(assignment) == [None, 2.0 if follows else None]


def test_what_pays_at_its_end_promises_nothing() -> None:
    assignment = with_a_stray(0.0)
    assert aims(assignment) == [None, None]
    assert assignment.representatives[:4].tolist() == [0, 0, 1, 1]
    # Even if it pays one agent most of all, and others less
    assert assignment._best_moment == 10.0


def test_the_moment_of_an_episode_is_the_best_for_whom_it_served_best() -> None:
    assignment = EpisodeAssignment(3, 1)
    steps = np.array([[1.0, 0.0, 9.0], [2.0, 0.5, 0.0], [8.0, 1.5, 0.0]])
    assignment.record_episodes(np.array([0]), steps.sum(axis=0)[None])
    assignment.record_trajectories([trajectory(0.0, steps)], [steps.sum(axis=0)])
    (episode,) = assignment.archive.episodes
    assert episode.moment.tolist() == [8.0, 1.5, 0.0] and assignment._best_moment == 8.0
    assert episode.returns.tolist() == [11.0, 2.0, 9.0]


# Far places


def test_who_is_on_the_way_is_left_in_peace_until_its_time_is_over() -> None:
    assignment = EpisodeAssignment(3, 1, patience=3, **QUICK)
    tell(assignment, [(0, [1, 0, 0], 0.0), (0, [0, 5, 0], 1.0)])
    tell(assignment, [(0, [1, 0, 0], 0.0)])
    assert aims(assignment) == [1.0] and assignment.time_left.tolist() == [3]
    found = []
    for rollout in range(4):
        # Much better and far away, but it happens once only
        tell(assignment, [(0, [0, 4, 0], 2.0)] * 100 + [(0, [0, 0, 50], 3.0)] * (rollout == 0))
        found.append((aims(assignment), assignment.time_left.tolist(), lessons(assignment)))
    on_the_way = ([1.0], [(0, 1.0, False)])
    assert [(aim, lesson) for aim, _, lesson in found[:2]] == [on_the_way] * 2
    assert [time for _, time, _ in found] == [[2], [1], [3], [2]]
    assert found[2][0] == [3.0] and found[2][2] == [(0, 3.0, True)]


@pytest.mark.parametrize(("reached", "forgiven"), [(8.9, False), (9.0, True), (9.5, True)])
def test_who_does_not_come_near_in_time_is_let_go_and_all_alike_is_forgotten(reached: float, forgiven: bool) -> None:
    assignment = EpisodeAssignment(4, 2, patience=2, **QUICK)
    own: Told = (0, [5, 0, 0, 0], 0.0)
    lucky: list[Told] = [(1, [0, 0, 10, 10], 2.0), (1, [0, 0, 2, 11], 3.0), (1, [0, 3, 0, 0], 4.0)]
    tell(assignment, [own, (1, [4, 0, 0, 0], 1.0), *lucky])
    tell(assignment, [own, (1, [4, 0, 0, 0], 1.0)])
    assert aims(assignment) == [None, 2.0] and len(assignment.archive) == 4
    measured: Told = (1, [0, 0, reached, reached], 5.0)
    tell(assignment, [own, measured])
    assert aims(assignment) == [None, 2.0] and lessons(assignment) == [(1, 2.0, False)]
    tell(assignment, [own, measured])
    if forgiven:
        assert aims(assignment) == [None, 2.0] and len(assignment.archive) == 4
    else:
        # The one of agent 1 is not alike; what was measured is among the alike
        assert aims(assignment) == [None, None]
        assert [float(one.trajectory.actions[0, 0]) for one in assignment.archive.episodes] == [0.0, 4.0]
    assert assignment.representatives[[0, 2, 3]].tolist() == [0, 1, 1]
    assert assignment.time_left.tolist() == [0, 0]


@pytest.mark.parametrize("seed", range(4))
def test_a_lottery_is_left_for_what_is_safe(seed: int) -> None:
    """One in ten pays 10 to agents whom somebody gives 2 for sure. No two tickets are the same, as with continuous actions."""
    rng = np.random.default_rng(seed)
    safe = {0.0: [2.0, 2.0, 0.0, 0.0], 1.0: [0.0, 0.0, 2.0, 2.0]}
    assignment = EpisodeAssignment(4, 2, patience=10)
    doing, played, left_at = [0.0, 1.0], 0, []
    for rollout in range(60):
        told: list[Told] = []
        for j, action in enumerate(doing):
            for _ in range(30):
                if action in safe:
                    told.append((j, safe[action], action))
                else:
                    played += 1
                    told.append((j, [0.0, *([10.0 * (rng.random() < 0.1)] * 2), 0.0], float(100 + played)))
        if rollout == 10:
            told.append((0, [0.0, 10.0, 10.0, 0.0], 100.0))
        tell(assignment, told, progress=rollout / 60, countable=False)
        obey(assignment, doing)
        if set(doing) != set(safe):
            left_at.append(rollout)
    # It was tempting, once, for as long as there was patience
    assert left_at == list(range(10, 20)) and played == 10 * 30
    served = np.array([safe[doing[j]][agent] for agent, j in enumerate(assignment.representatives)])
    assert served.tolist() == [2.0] * 4


def test_what_is_done_again_with_less_luck_is_known_for_what_it_is() -> None:
    """With countable actions the mean tells, and who aims at it is told of it as well."""
    assignment = EpisodeAssignment(3, 1, exploration=0.0, **QUICK)
    pays = {0.0: [2.0, 2.0, 2.0], 1.0: [1.0, 1.0, 0.0]}
    tell(assignment, [(0, [6.0, 6.0, 0.0], 1.0), (0, [2.0, 2.0, 2.0], 0.0)])
    doing, done = [0.0], []
    for _ in range(15):
        play(assignment, doing, lambda action: pays[action], 1, progress=1.0)
        done.append(doing[0])
    # (6 + n) / (1 + n) for two agents is less than 2 for three from n = 2 on, but for what a swap may gain by rounding
    assert done[:2] == [1.0, 1.0] and done[4:] == [0.0] * 11


# Lessons


def near(k: int, progress: float, countable: bool, cls: type[EpisodeAssignment] = EpisodeAssignment) -> EpisodeAssignment:
    """Representative 0 does what an episode does somewhat better."""
    assignment = cls(4, k, **QUICK)
    own: list[Told] = [(0, [2, 2, 0, 0], 0.0), (1, [0, 0, 3, 3], 1.0)][:k]
    tell(assignment, [*own, (0, [3, 3, 0, 0], 2.0)], progress, countable=countable)
    tell(assignment, own, progress, countable=countable)
    # Who has found something near aims at it in any case
    assert aims(assignment)[0] == 2.0
    return assignment


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
    ("progress", "countable", "expected"), [(0.0, False, 0), (0.0, True, 0), (1.0, True, 0), (1.0, False, 1)]
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


# Agents, many or few


def both_ways(told: list[Told], weights: np.ndarray) -> list[Told]:
    return [(j, np.asarray(returns) @ weights.T, action) for j, returns, action in told]


@pytest.mark.parametrize("seed", range(3))
def test_told_by_features_it_does_as_told_by_agents(seed: int) -> None:
    """Small numbers, so that nothing is rounded."""
    rng = np.random.default_rng(seed)
    n_agents, n_features, k = 200, 5, 3
    weights = (rng.integers(-2, 9, size=(n_agents, n_features)) * (rng.random((n_agents, n_features)) < 0.4)).astype(
        np.float32
    )
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


def test_what_is_saved() -> None:
    assignment = with_a_stray(0.0, WALKS)
    file = io.BytesIO()
    th.save(assignment.state_dict(), file)
    file.seek(0)
    again = EpisodeAssignment(6, 2, **QUICK)
    again.load_state_dict(th.load(file, weights_only=True))
    assert aims(again) == aims(assignment) == [None, 2.0]
    assert again.time_left.tolist() == assignment.time_left.tolist() and again._best_moment == assignment._best_moment
    np.testing.assert_array_equal(again.representatives, assignment.representatives)
    assert len(again.archive) == 0 and again.lessons() == []
    for name in ("returns", "utilities", "moment"):
        np.testing.assert_array_equal(getattr(again.aims[1], name), getattr(assignment.aims[1], name))
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
