"""
What would be left to save with few policies: actor and critic side by side, the critic beside the next rollout, compiling.

    python -m benchmarks.overlap

Takes the parts of an update at (k, n) = (5, 100) on rmdp/HalfCheetahVelocity-v0 apart and times each alone, then beside
another that runs in a thread or in a process of its own, on a machine with an idle core. Medians of timings, in seconds per
update; ``results/overlap.json`` is the result. Compiling needs a C++ compiler and is left out without one.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch as th

from benchmarks.welfare import PACKAGES, RESULTS
from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.actor import numpy_actor
from sb3_rmdp.represented_ppo import block_gradients
from sb3_rmdp.represented_ppo.manual_gradients import ManualGradients
from sb3_rmdp.vec_env import make_represented_vec_env

RESULT = RESULTS / "overlap.json"


class Parts:
    """
    The parts of an update, each to be run by itself.

    :param k: representatives
    :param n_agents: agents
    """

    def __init__(self, k: int, n_agents: int):
        self.env = make_represented_vec_env("rmdp/HalfCheetahVelocity-v0", k, env_kwargs={"n_agents": n_agents})
        self.model = RepresentedPPO("MlpPolicy", self.env, k=k, assignment="em", device="cpu", seed=0)
        self.model.learn(2 * k * self.model.n_steps)
        self.model.rollout_buffer.compute_marginal_advantages(*self.model._group_weights())
        act = numpy_actor(self.model.policy)
        assert act is not None
        self.act = act
        self.gradients = ManualGradients(self.model, 0.2, 0.0)
        next(self.gradients.epoch())
        self.blocks = self.gradients._ranges[0]
        assert len(self.gradients._ranges) == 1, "minibatches of this size are cut; take fewer policies"

    def collection(self) -> None:
        """The steps of a rollout, actions included."""
        obs, acting = self.env.reset(), np.arange(self.model.k)
        for _ in range(self.model.n_steps):
            assert isinstance(obs, np.ndarray)
            obs = self.env.step(self.act(obs, acting).clip(-1.0, 1.0))[0]

    def actor(self) -> None:
        """Gradients of the actors in all epochs."""
        self.epochs(self.blocks.actor_gradients)

    def critic(self) -> None:
        """Gradients of the critic in all epochs."""
        self.epochs(self.blocks.critic_gradients)

    def epochs(self, kernel: Callable[..., Any]) -> None:
        """
        :param kernel: gradients of a minibatch
        """
        batch = self.model.batch_size
        for _ in range(self.model.n_epochs):
            for begin in range(0, self.model.n_steps, batch):
                kernel(self.gradients._epoch, begin * self.model.k, batch)


def seconds(part: Callable[[], object], repeats: int) -> float:
    """
    :param part: what to time
    :param repeats: how often
    :return: the median
    """
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        part()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@contextmanager
def beside(part: Callable[[], None], in_thread: bool) -> Iterator[None]:
    """
    :param part: what runs again and again meanwhile
    :param in_thread: in a thread, else in a process of its own
    """
    if in_thread:
        over = threading.Event()

        def work() -> None:
            th.set_num_threads(1)
            while not over.is_set():
                part()

        thread = threading.Thread(target=work)
        thread.start()
        yield
        over.set()
        thread.join()
        return
    child = os.fork()
    if child == 0:
        while True:
            part()
    yield
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def compiled(parts: Parts, repeats: int) -> dict[str, float]:
    """
    :param parts: of an update
    :param repeats: timings
    :return: seconds to compile both kernels, and seconds of each per update
    """
    kernels = {"actor": parts.blocks.actor_gradients, "critic": parts.blocks.critic_gradients}
    result = {"compilation": 0.0}
    # A kernel cannot call numpy
    with mock.patch.object(block_gradients, "_tanh", th.tanh):
        for name, kernel in kernels.items():
            fast = th.compile(kernel)
            # The second and third minibatch tell the compiler that where a minibatch begins is not a constant
            result["compilation"] += 3 * seconds(partial(fast, parts.gradients._epoch, 0, parts.model.batch_size), 1)
            parts.epochs(fast)
            result[name] = seconds(partial(parts.epochs, fast), repeats)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """
    Command line.

    :param argv: arguments, those of the process by default
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", type=int, default=5, help="representatives")
    parser.add_argument("-n", type=int, default=100, help="agents")
    parser.add_argument("--repeats", type=int, default=9, help="timings of each")
    parser.add_argument("-o", "--out", type=Path, default=RESULT, help="file to write")
    arguments = parser.parse_args(argv)
    parts = Parts(arguments.k, arguments.n)
    th.set_num_threads(1)
    rows: dict[str, dict[str, float]] = {}
    for _ in range(2):  # the first round warms up
        rows["alone"] = {part: seconds(getattr(parts, part), arguments.repeats) for part in ("collection", "actor", "critic")}
    rows["critic in a thread"] = {}
    rows["critic in a process"] = {}
    for row, in_thread in (("critic in a thread", True), ("critic in a process", False)):
        for part in ("collection", "actor"):
            with beside(parts.critic, in_thread):
                rows[row][part] = seconds(getattr(parts, part), arguments.repeats)
            with beside(getattr(parts, part), in_thread):
                rows[row][f"critic beside {part}"] = seconds(parts.critic, arguments.repeats)
    try:
        rows["compiled"] = compiled(parts, arguments.repeats)
    except Exception as error:  # whatever a compiler may lack
        print(f"kernels were not compiled: {error}")
    for row, columns in rows.items():
        print(f"{row:20}", ", ".join(f"{name} {value:.3f} s" for name, value in columns.items()))
    about: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.overlap", *(sys.argv[1:] if argv is None else argv)]),
        "cores": os.cpu_count(),
    }
    about |= {"versions": {name: version(name) for name in PACKAGES}}
    arguments.out.write_text(json.dumps({**about, "seconds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
