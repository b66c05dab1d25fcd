"""Threads that share tasks: order, errors, ends."""

from __future__ import annotations

import gc
import threading
import time
import traceback
from functools import partial
from typing import Any

import pytest

from sb3_rmdp.common.team import Team


def until(condition: Any) -> bool:
    deadline = time.monotonic() + 10.0
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("n_tasks", [0, 1, 2, 7])
def test_results_come_in_the_order_of_tasks(n_threads: int, n_tasks: int) -> None:
    team: Team[tuple[int, str]] = Team(n_threads)
    for _ in range(20):
        results = team.run([partial(lambda i: (i, threading.current_thread().name), i) for i in range(n_tasks)])
        assert [number for number, _ in results] == list(range(n_tasks))
        names = [name for _, name in results]
        # Task i always belongs to the same thread, the first to the caller
        assert names[:1] == [threading.current_thread().name][:n_tasks]
        assert len(set(names)) == min(n_threads, n_tasks)
        assert all(names[i] == names[i % n_threads] for i in range(n_tasks))
    team.close()


def test_tasks_are_done_at_the_same_time() -> None:
    """Each waits for the other: one after the other they would wait for ever."""
    team: Team[int] = Team(2)
    barrier = threading.Barrier(2, timeout=10.0)
    assert sorted(team.run([barrier.wait, barrier.wait])) == [0, 1]
    team.close()


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_an_error_comes_when_all_have_ended_with_its_own_traceback(broken: int) -> None:
    team: Team[Any] = Team(2)
    ended: list[int] = []

    def task(number: int) -> None:
        if number == broken:
            raise ArithmeticError("out of order")
        time.sleep(0.05)
        ended.append(number)

    with pytest.raises(ArithmeticError, match="out of order") as error:
        team.run([partial(task, number) for number in range(3)])
    # All but those after the broken one in its own thread: tasks 0 and 2 are of one
    assert sorted(ended) == {0: [1], 1: [0, 2], 2: [0, 1]}[broken]
    assert "task" in [frame.name for frame in traceback.extract_tb(error.tb)]
    assert team.run([lambda: 1, lambda: 2]) == [1, 2]  # nobody is lost
    team.close()


def test_threads_are_made_ready_and_end_with_the_team() -> None:
    # Threads of what earlier tests have left behind may still end
    before = set(threading.enumerate())
    ready: list[str] = []
    team: Team[int] = Team(3, lambda: ready.append(threading.current_thread().name))
    assert len(set(threading.enumerate()) - before) == 2
    assert until(lambda: len(ready) == 2) and threading.current_thread().name not in ready
    del team
    gc.collect()
    assert until(lambda: not set(threading.enumerate()) - before)
