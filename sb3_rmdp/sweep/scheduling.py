"""
Runs of a sweep on Ray, on this machine or on a cluster.

Only the process that runs the sweep knows the file of results: workers send back what they have measured. Runs are tried again
from here, and not by Ray, so that it can be told which one died, and of what.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sb3_rmdp.sweep.config import Run
from sb3_rmdp.sweep.progress import Board, Tell
from sb3_rmdp.sweep.running import Outcome, train_and_evaluate

#: No reports to anybody, and no metrics that nobody collects
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_enable_metrics_collection": "0",
}

#: For what Ray shares between processes on this machine; results are small, but Ray takes a third of the memory by itself
SHARED_BYTES = 100 * 2**20

#: Seconds that a cluster has to answer; Ray itself tries for two minutes, and then ends the process
PATIENCE = {"port": 5.0, "cluster": 40.0}

#: Ends with a line that says why a cluster cannot be joined
JOIN = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
except Exception as error:
    # What is raised last says that it did not work, and what was raised first says why
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    sys.exit(" ".join(str(error).split()))
"""


@dataclass(frozen=True)
class Finished:
    """
    A run came to its end.

    :param run: which
    :param outcome: its results
    """

    run: Run
    outcome: Outcome


@dataclass(frozen=True)
class Died:
    """
    A run did not.

    :param run: which
    :param reason: why, in a line
    :param traceback: where, if it raised an error
    :param again: whether it is tried again
    """

    run: Run
    reason: str
    traceback: str
    again: bool


def load_ray() -> Any:
    """
    :return: the module
    :raises ValueError: if Ray is not installed
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise ValueError('Ray is not installed: pip install "sb3_rmdp[sweep]"') from error
    return ray


def connect(address: str | None, workers: int) -> None:
    """
    :param address: of a cluster; by default one is started here
    :param workers: runs at a time on this machine
    :raises ValueError: if nobody answers there
    """
    ray = load_ray()
    quiet = dict(log_to_driver=False, logging_level=logging.ERROR)
    if address is None:
        # Of workers, which inherit it: there is one per core. On a cluster, Ray sees to that
        os.environ["OMP_NUM_THREADS"] = "1"
        ray.init("local", num_cpus=workers, include_dashboard=False, object_store_memory=SHARED_BYTES, **quiet)
        return
    check_answers(address)
    ray.init(address, **quiet)


def check_answers(address: str) -> None:
    """
    :param address: of a cluster: ``auto``, ``host:port`` or ``ray://host:port``
    :raises ValueError: if it cannot be joined
    """
    advice = "start one with ray start --head, set RAY_AUTH_TOKEN if it wants one, or leave --address out to run here"
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address != "auto" and not (colon and host and port.isdigit()):
        raise ValueError(f"{address!r} is no address of a Ray cluster: give host:6379, ray://host:10001 or auto")
    try:
        if address != "auto":
            socket.create_connection((host, int(port)), timeout=PATIENCE["port"]).close()
        # In a process of its own, which Ray may end as it likes
        command = [sys.executable, "-c", JOIN, address]
        joined = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE["cluster"], check=False)
    except (OSError, OverflowError) as error:
        raise ValueError(f"nobody answers at {address} ({error}): {advice}") from error
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"no Ray cluster answers at {address} within {error.timeout:.0f} s: {advice}") from error
    if joined.returncode:
        said = (joined.stderr.strip().splitlines() or ["no reason given"])[-1].partition(". ")[0]
        raise ValueError(f"the Ray cluster at {address} cannot be joined ({said}): {advice}")


@contextlib.contextmanager
def terminated_as_by_ctrl_c() -> Iterator[None]:
    """
    While in here, SIGTERM, by which machines are shut down and jobs are ended, raises ``KeyboardInterrupt``. Ray would print
    addresses in memory, and its processes would notice later. To be entered after :func:`connect`, since Ray listens as well.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def disconnect() -> None:
    """End what runs, and Ray on this machine where it was started for the sweep."""
    load_ray().shutdown()


def execute(
    runs: Sequence[Run],
    at_a_time: int | None,
    retries: int,
    with_models: bool = False,
    follow: Callable[[float], None] | None = None,
) -> Iterator[Finished | Died]:
    """
    Train what is to be trained; call :func:`connect` first.

    :param runs: in the order in which they begin
    :param at_a_time: how many are handed to Ray at a time; by default all, which lets a cluster grow
    :param retries: how often a run that died is tried again
    :param with_models: return final models
    :param follow: called about once a second with what is done of the runs that are underway: 1.5 if two have come to three
        quarters. By default nobody asks
    :return: what happens to them, as it happens
    """
    ray = load_ray()
    board = Board(ray) if follow is not None and runs else None
    remote = ray.remote(num_cpus=1, max_retries=0)(train_on_one_thread)
    waiting = deque((run, 0) for run in runs)
    running: dict[Any, tuple[Run, int]] = {}
    while waiting or running:
        while waiting and len(running) < (at_a_time or len(runs)):
            run, tried = waiting.popleft()
            tell = None if board is None else board.teller(_attempt(run, tried))
            running[remote.remote(run, with_models, tell)] = run, tried
        # Ctrl-C is heard between two calls
        ended, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
        for reference in ended:
            run, tried = running.pop(reference)
            try:
                event: Finished | Died = Finished(run, ray.get(reference))
            except ray.exceptions.RayError as error:
                event = Died(run, *_reason(error), again=tried < retries)
                if event.again:
                    waiting.appendleft((run, tried + 1))
            yield event
        if board is not None and follow is not None:
            follow(board.done(_attempt(*one) for one in running.values()))


def _attempt(run: Run, tried: int) -> str:
    """Name of an attempt at a run: the next one begins at nothing."""
    return f"{run.id} {tried}"


def train_on_one_thread(run: Run, with_model: bool, tell: Tell | None) -> Outcome:
    """
    What a worker does.

    :param run: what to train
    :param with_model: return the final model as well
    :param tell: is told how far it is
    :return: its evaluations
    """
    import torch

    # Workers are one per core, and only on one thread are results reproducible bit for bit
    torch.set_num_threads(1)
    try:
        return train_and_evaluate(run, with_model, tell)
    except Exception as error:
        if _can_travel(error):
            raise
        # Ray would say that the process died, and not why
        raise RuntimeError(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__) from None


def _can_travel(error: Exception) -> bool:
    """Whether it is the same in another process: not if its arguments are not those of its constructor, or hold a lock."""
    try:
        return str(pickle.loads(pickle.dumps(error))) == str(error)
    except Exception:
        return False


def _reason(error: Exception) -> tuple[str, str]:
    """Why a run died, and its traceback."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        said = " ".join(str(cause).split())
        return f"{type(cause).__name__}: {said}" if said else type(cause).__name__, str(error)
    lines = str(error).strip().splitlines() or [""]
    return f"its process died ({type(error).__name__}: {lines[0].strip()[:200]})", ""
