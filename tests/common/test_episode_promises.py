"""Assignment by the best episodes: promises, patience and luck."""

from __future__ import annotations

import numpy as np
import pytest

from sb3_rmdp.common.assignment import EpisodeAssignment
from tests.common.told import QUICK, WALKS, Told, aims, lessons, obey, tell, trajectory, with_a_stray


def test_a_promise_attracts_to_agents_whom_nobody_serves() -> None:
    assignment = with_a_stray(0.0, WALKS)
    assert aims(assignment) == [None, 2.0] and lessons(assignment) == [(1, 2.0, True)]
    assert assignment.representatives.tolist() == [0, 0, 0, 1, 1, 1] or assignment.representatives[[4, 5]].tolist() == [1, 1]
    # Where the walk paid less than the policies do it promises more: it would pay ten moments
    assert with_a_stray(0.3, WALKS).representatives[[4, 5]].tolist() == [1, 1]


@pytest.mark.parametrize(("progress", "expected"), [(0.0, [0, 0, 1, 1]), (0.9, [0, 0, 1, 0])])
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
        (0.9, 1.0, True),
    ],
)
def test_promises_fade(progress: float, exploration: float, follows: bool) -> None:
    assignment = with_a_stray(progress, WALKS, exploration=exploration)
    assert aims(assignment) == [None, 2.0 if follows else None]


@pytest.mark.parametrize(("fallen", "follows"), [([], True), ([2.0], False), ([1.0], False), ([0.0, 1.0], False)])
def test_nothing_is_promised_where_episodes_end_by_themselves(fallen: list[float], follows: bool) -> None:
    """Whichever it was, and whether or not it was the one that would promise."""
    assignment = with_a_stray(0.0, WALKS, fallen)
    assert assignment._falls == bool(fallen)
    assert aims(assignment) == [None, 2.0 if follows else None]


def test_one_fall_is_enough() -> None:
    assignment = with_a_stray(0.0, WALKS)
    assert aims(assignment) == [None, 2.0] and assignment.representatives[[4, 5]].tolist() == [1, 1]
    assert assignment._promised_moments(np.ones((2, 6)), 0.0) == 1.0
    fall: Told = (0, [0.0] * 6, 9.0)
    tell(assignment, [fall], steps=WALKS, fallen=[9.0])
    for _ in range(3):
        tell(assignment, [], steps=WALKS)
        assert assignment._falls and assignment._promised_moments(np.ones((2, 6)), 0.0) == 0.0


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


@pytest.mark.parametrize(
    ("known_by", "aimed_at"),
    [
        # (6 + n) / (1 + n) for two agents is less than 2 for three from n = 2 on
        ("the archive", [1.0, 0.0, 0.0, 0.0]),
        # Of the equal one nobody knows better yet
        ("an aim beside an equal episode", [2.0, 2.0, 2.0, 2.0]),
        # Which has no archive: there is nothing else to aim at
        ("an aim from a file", [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_what_is_done_again_with_less_luck_is_known_for_what_it_is(known_by: str, aimed_at: list[float]) -> None:
    """With countable actions the mean tells, whoever remembers the episode."""
    assignment = EpisodeAssignment(3, 1, exploration=0.0, **QUICK)
    safe: Told = (0, [2.0, 2.0, 2.0], 0.0)
    tell(assignment, [(0, [6.0, 6.0, 0.0], 1.0), safe])
    tell(assignment, [safe])
    if known_by == "an aim beside an equal episode":
        tell(assignment, [safe, (0, [6.0, 6.0, 0.0], 2.0)])
    elif known_by == "an aim from a file":
        state, assignment = assignment.state_dict(), EpisodeAssignment(3, 1, exploration=0.0, **QUICK)
        assignment.load_state_dict(state)
    first = assignment.aims[0]
    assert first is not None and ((first in assignment.archive.episodes) is (known_by == "the archive"))
    aimed = []
    for n in range(1, 5):
        tell(assignment, [(0, [1.0, 1.0, 0.0], 1.0)])
        aimed += aims(assignment)
        if assignment.aims[0] is first:
            assert first.utilities.tolist() == pytest.approx([(6 + n) / (1 + n)] * 2 + [0.0])
        # It cannot be repeated, and nobody tries to any more
        assert lessons(assignment) == []
    assert aimed == aimed_at and first.n_samples > 1


def test_luck_is_not_counted_on_where_the_same_is_paid_differently() -> None:
    """Agent 2 had luck with representative 0 once; with countable actions it would wait for more until the end."""
    served = {}
    for varies in (False, True):
        assignment = EpisodeAssignment(3, 2, exploration=0.0, **QUICK)
        own: list[Told] = [(0, [5, 0, 0], 0.0), (1, [0, 5, 1], 1.0)]
        tell(assignment, [*own, (0, [5, 0, 3], 2.0)])
        tell(assignment, own)
        assert aims(assignment) == [2.0, None] and assignment.representatives.tolist() == [0, 1, 0]
        if varies:
            tell(assignment, [own[0], (1, [0, 5, 1.5], 1.0)])
        tell(assignment, own)
        served[varies] = assignment.representatives.tolist()
        assert lessons(assignment) == ([] if varies else [(0, 2.0, False)])
        # That it varies is known after a file as well, and what is no more than rounding does not
        again = EpisodeAssignment(3, 2, exploration=0.0, **QUICK)
        again.load_state_dict(assignment.state_dict())
        tell(again, own)
        assert again.representatives.tolist() == served[varies]
    assert served == {False: [0, 1, 0], True: [0, 1, 1]}


def test_who_is_not_known_yet_has_its_time_left() -> None:
    """Episodes may last longer than patience: it is judged by the first of them, and a copy is made once."""
    assignment = EpisodeAssignment(4, 2, patience=2, **QUICK)
    own: Told = (0, [5, 5, 0, 0], 0.0)
    tell(assignment, [own, (1, [4, 4, 0, 0], 1.0), (1, [0, 0, 3, 3], 2.0)])
    tell(assignment, [own, (1, [4, 4, 0, 0], 1.0)])
    assert lessons(assignment) == [(1, 2.0, True)]
    for _ in range(5):
        tell(assignment, [own])
        assert lessons(assignment) == [(1, 2.0, False)] and assignment.time_left.tolist() == [0, 2]
    tell(assignment, [own, (1, [0, 0, 1, 0], 3.0)])
    assert aims(assignment) == [None, 2.0] and assignment.time_left.tolist() == [0, 1]
    tell(assignment, [own, (1, [0, 0, 1, 0], 3.0)])
    assert aims(assignment) == [None, None] and lessons(assignment) == []


@pytest.mark.parametrize(("before", "more"), [(0, 0), (50, 0), (50, 1)])
def test_the_time_left_is_that_of_this_training(before: int, more: int) -> None:
    """Whether it begins at nothing or goes on with one that was to end: ``learn`` tells the share of all that is planned."""
    assignment = EpisodeAssignment(2, 1, **QUICK)
    for rollout in range(1, before + 1):
        tell(assignment, [(0, [1, 1], 0.0)], progress=rollout / before)
    done, planned = (before, before + 20) if more else (0, 20)
    for rollout in range(done + 1, planned + 1):
        left = assignment._rollouts_left(rollout / planned)
        assert left == pytest.approx(0 if before and rollout == done + 1 else planned - rollout)
        tell(assignment, [(0, [1, 1], 0.0)], progress=rollout / planned)
