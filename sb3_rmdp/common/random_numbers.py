"""Random numbers that all of a process draws from."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch as th


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
