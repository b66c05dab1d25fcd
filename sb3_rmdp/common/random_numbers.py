"""Random numbers that all of a process draws from."""

from __future__ import annotations

import contextlib
import functools
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.utils import set_random_seed

P = ParamSpec("P")
T = TypeVar("T")

#: ``depth``: how many calls of ``learn`` this thread is in
_trainings = threading.local()


@contextlib.contextmanager
def same_random_numbers_after() -> Iterator[None]:
    """What draws random numbers in here leaves those that come after as they would have been."""
    before = random.getstate(), np.random.get_state()
    with th.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


@contextlib.contextmanager
def training() -> Iterator[None]:
    """While this lasts, functions that are :func:`apart_from_training` leave random numbers as they are."""
    _trainings.depth = getattr(_trainings, "depth", 0) + 1
    try:
        yield
    finally:
        _trainings.depth -= 1


@contextlib.contextmanager
def outside_of_training() -> Iterator[None]:
    """
    While this lasts, functions that are :func:`apart_from_training` draw as they do where nothing is trained: for who takes
    care of the training's random numbers, and wants those that an evaluation after it would have.
    """
    depth, _trainings.depth = getattr(_trainings, "depth", 0), 0
    try:
        yield
    finally:
        _trainings.depth = depth


@contextlib.contextmanager
def other_random_numbers() -> Iterator[None]:
    """Draws in here neither change those that come after nor repeat them: they begin with a seed drawn from these."""
    with same_random_numbers_after():
        set_random_seed(int(th.randint(2**31, ())))
        yield


def apart_from_training(function: Callable[P, T]) -> Callable[P, T]:
    """
    :param function: one that lets policies act, be it in a callback
    :return: the same; called in a training, it leaves the training's random numbers alone
    """

    @functools.wraps(function)
    def apart(*args: P.args, **kwargs: P.kwargs) -> T:
        with other_random_numbers() if getattr(_trainings, "depth", 0) else contextlib.nullcontext():
            return function(*args, **kwargs)

    return apart


def random_state(device: th.device) -> dict[str, Any]:
    """
    :param device: of a model
    :return: where Python, numpy and torch are in their random numbers, as plain data
    """
    version, numbers, gauss = random.getstate()
    state = {
        "python": (version, np.array(numbers, dtype=np.uint64), gauss),
        "numpy": np.random.get_state(),
        "torch": th.get_rng_state(),
    }
    return state if device.type != "cuda" else {**state, "cuda": th.cuda.get_rng_state(device)}


def set_random_state(state: dict[str, Any], device: th.device) -> None:
    """
    :param state: from :func:`random_state`
    :param device: of the model; random numbers of a GPU are those of its seed if the state is from a CPU
    """
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    np.random.set_state(state["numpy"])
    th.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        th.cuda.set_rng_state(state["cuda"], device)
