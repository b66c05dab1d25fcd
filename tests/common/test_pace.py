"""How soon representatives do what an episode did."""

from __future__ import annotations

import numpy as np
import torch as th

from sb3_rmdp.common.pace import ByHeart, ByPractice


def test_a_move_that_takes_practice_wins_back_until_the_end_what_waiting_costs() -> None:
    pace = ByPractice(patience=30, move_cost=0.1)
    for left in (31.0, 60.0, 90.0, 300.0):
        # Agents lose 1 in each of 30 rollouts, and gain the price in each of those that are left then
        assert np.isclose(pace.price(left) * (left - 30.0), 30.0)
    # Never less than the least, however long the training goes on; and nobody leaves who would not arrive
    assert pace.price(10_000.0) == pace.price(np.inf) == 0.1
    assert pace.price(30.0) == pace.price(0.0) == np.inf


def test_what_is_learned_by_heart_is_free_while_there_is_time_to_imitate() -> None:
    pace = ByHeart(restarts=4, stagnation=10)
    assert [pace.price(left) for left in (np.inf, 11.0, 10.0, 0.0)] == [0.0, 0.0, np.inf, np.inf]
    assert [pace.imitates(stagnant, False) for stagnant in (0, 9, 10)] == [False, False, True] and pace.imitates(0, True)
    assert pace.n_searches == 4


def test_agents_rely_on_what_will_be_there() -> None:
    on_the_way = np.array([True, False, False])
    aimed, own, known = th.tensor([[1.0, 5.0, 1.0]]), th.tensor([[2.0, 2.0, 9.0]]), th.tensor([True, True, False])
    by_heart, by_practice = ByHeart(restarts=0, stagnation=0), ByPractice(patience=1, move_cost=0.0)
    assert by_heart.relied_on(on_the_way, False).all()
    assert by_heart.counted_on(aimed, own, known).tolist() == [[1.0, 5.0, 1.0]]
    assert by_practice.relied_on(on_the_way, False).tolist() == [True, False, False]
    assert by_practice.relied_on(on_the_way, True).all()
    # What nobody knows is not counted, be it large
    assert by_practice.counted_on(aimed, own, known).tolist() == [[2.0, 5.0, 1.0]]
    assert not by_practice.imitates(99, True) and by_practice.n_searches == 0
