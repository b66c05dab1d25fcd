"""A few threads that take a few tasks together, again and again."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class Team(Generic[Result]):
    """
    The calling thread and others, among which tasks are dealt out in turn: who takes which does not depend on chance.

    For tasks of a tenth of a millisecond or more that release the interpreter for most of their time. Python's own pools
    take longer to hand a task over than some of ours take.

    :param n_threads: the calling thread included, at least 1
    :param initialize: called in each other thread when it starts
    """

    def __init__(self, n_threads: int, initialize: Callable[[], Any] | None = None):
        self.n_threads = n_threads
        self._inboxes: list[SimpleQueue] = [SimpleQueue() for _ in range(n_threads - 1)]
        for number, inbox in enumerate(self._inboxes):
            # Threads know nothing of the team, so that they end when nobody else does
            Thread(target=_work, args=(inbox, initialize), name=f"team-{number}", daemon=True).start()
        self.close = weakref.finalize(self, _dismiss, self._inboxes)

    def run(self, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
        """
        :param tasks: what is to be done
        :return: what came of each
        :raises Exception: that of the first task which raised one, when no thread is at work any more
        """
        n_threads = max(1, min(self.n_threads, len(tasks)))
        # One of its own: what an interrupted call left behind is nobody else's
        done: SimpleQueue = SimpleQueue()
        for number in range(1, n_threads):
            self._inboxes[number - 1].put((done, number, tasks[number::n_threads]))
        shares = [_do(0, tasks[::n_threads])] + [done.get() for _ in range(1, n_threads)]
        results: list[Any] = [None] * len(tasks)
        for number, share, error in sorted(shares, key=lambda share: share[0]):
            if error is not None:
                raise error
            results[number::n_threads] = share
        return results


def _do(number: int, tasks: Sequence[Callable[[], Any]]) -> tuple[int, list[Any], BaseException | None]:
    """A share of the tasks: whose it is, what came of it, and what went wrong."""
    try:
        return number, [task() for task in tasks], None
    except BaseException as error:
        # Its traceback begins where it was raised, in whichever thread
        return number, [], error


def _work(inbox: SimpleQueue, initialize: Callable[[], Any] | None) -> None:
    if initialize is not None:
        initialize()
    while (share := inbox.get()) is not None:
        done, number, tasks = share
        done.put(_do(number, tasks))
        del share, done, tasks  # or all that they refer to would live until the next


def _dismiss(inboxes: list[SimpleQueue]) -> None:
    for inbox in inboxes:
        inbox.put(None)
