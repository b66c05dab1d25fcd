"""Ctrl-C in a training: it ends after a step, in which all environments are left in order, and the model can be saved."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback


class StopOnInterrupt(BaseCallback):
    """
    Ends the training at the step after the first Ctrl-C.

    An exception in the midst of a step would leave a SubprocVecEnv, some of whose workers have answered and some not, waiting
    for ever when it is closed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked = False

    def _on_step(self) -> bool:
        return not self.asked

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """While in here, the first Ctrl-C asks for the end, and the second raises ``KeyboardInterrupt`` as ever."""
        before = signal.getsignal(signal.SIGINT)
        # Only the main thread can listen, and a process in the background may have been told not to
        if threading.current_thread() is not threading.main_thread() or before is signal.SIG_IGN:
            yield
            return

        def ask(*_: Any) -> None:
            self.asked = True
            signal.signal(signal.SIGINT, before)
            print("\nStopping at the next step, and saving then. Ctrl-C once more stops at once.", flush=True)

        signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def sigint_ignored() -> Iterator[None]:
    """
    Processes started in here do not hear of Ctrl-C, which a terminal sends to all: environments whose workers are gone could
    not even be closed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
