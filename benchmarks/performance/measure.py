"""
Measures one case, in a process of its own so that peak memory is its own; what to do comes as JSON, what came of it goes as
JSON to the last line of the output. For use by ``__main__``.
"""

from __future__ import annotations

import inspect
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env

from benchmarks.performance.floor import floor
from benchmarks.performance.profile import shares
from benchmarks.performance.rows import VELOCITY, WARM_UP, Case
from sb3_rmdp import RepresentedPPO
from sb3_rmdp.envs.velocity import VelocityTargets
from sb3_rmdp.vec_env import VelocityVecEnv, make_represented_vec_env

#: Threads that torch takes by itself
DEFAULT_THREADS = torch.get_num_threads()


def why_not(case: Case) -> str | None:
    """
    :param case: a case
    :return: what keeps it from being measured here; ``None`` if nothing does
    """
    for name, takes, whose in (
        ("critic_rank", RepresentedPPO.__init__, "RepresentedPPO"),
        ("n_features", VelocityTargets.__init__, "velocity tasks"),
    ):
        if getattr(case, name) is not None and name not in inspect.signature(takes).parameters:
            return f"{name} is no argument of {whose}"
    if case.device == "cuda" and not torch.cuda.is_available():
        return "there is no GPU"
    return None


class Side:
    """
    One of those that are timed in turn.

    :param model: a model
    :param transitions: of one rollout
    :param copies: how many of it would be trained one after the other
    :param threads: of torch
    """

    def __init__(self, model: BaseAlgorithm, transitions: int, copies: int = 1, threads: int = 1):
        self.model, self.transitions, self.copies, self.threads = model, transitions, copies, threads

    def update(self, rollouts: int = 1) -> float:
        """Collect and learn, once by default; returns seconds."""
        torch.set_num_threads(self.threads)
        start = time.perf_counter()
        self.model.learn(rollouts * self.transitions, reset_num_timesteps=False)
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
        return self.copies * (time.perf_counter() - start)


def represented(case: Case, work: dict[str, Any]) -> Side:
    """
    :param case: what to train
    :param work: arguments of the model that make an update
    :return: RepresentedPPO
    """
    env_kwargs: dict[str, Any] = {"n_agents": case.n} if case.env == VELOCITY else {}
    if case.n_features is not None:
        env_kwargs["n_features"] = case.n_features
    if case.threads is None:
        env = make_represented_vec_env(case.env, case.k, seed=0, env_kwargs=env_kwargs)
    else:
        threads = {"n_threads": case.threads}
        env = make_vec_env(case.env, case.k, seed=0, env_kwargs=env_kwargs, vec_env_cls=VelocityVecEnv, vec_env_kwargs=threads)
    rank: dict[str, Any] = {} if case.critic_rank is None else {"critic_rank": case.critic_rank}
    model = RepresentedPPO("MlpPolicy", env, k=case.k, seed=0, device=case.device, **work, **rank)
    return Side(model, work["n_steps"] * case.k, threads=case.threads or DEFAULT_THREADS)


def stock(case: Case, work: dict[str, Any], threads: int = 1) -> Side:
    """
    :param case: what RepresentedPPO trains
    :param work: arguments of the model that make an update
    :param threads: of torch
    :return: k stock PPOs one after the other
    """
    env_kwargs: dict[str, Any] = {"n_agents": 1} if case.env == VELOCITY else {}
    env = gym.make(case.env, **env_kwargs)
    model = PPO("MlpPolicy", env, seed=0, device="cpu", **work)
    return Side(model, work["n_steps"], copies=case.k, threads=threads)


def rival_threads(case: Case, work: dict[str, Any]) -> dict[str, float]:
    """
    :param case: what RepresentedPPO trains
    :param work: arguments of the model that make an update
    :return: seconds per update of one stock PPO by number of threads: one, and as many as torch takes by itself
    """
    side = stock(replace(case, k=1), work)
    side.update()
    seconds = {}
    for side.threads in sorted({1, DEFAULT_THREADS}):
        seconds[str(side.threads)] = side.update()
    return seconds


def timings(seconds: list[float]) -> dict[str, Any]:
    """
    :param seconds: of updates
    :return: their median, minimum and maximum
    """
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds), "repeats": len(seconds)}


def measure(case: Case, base: Case | None, rival_threads: int | None, repeats: int, work: dict[str, Any]) -> dict[str, Any]:
    """
    :param case: what to time
    :param base: another case to time in turn with it
    :param rival_threads: otherwise, threads of torch of the stock PPOs to time in turn with it; ``None`` for no rival at all
    :param repeats: updates timed of either side
    :param work: arguments of the models that make an update
    :return: what there is to report, or why there is nothing; with a rival also where time goes
    """
    for reason in (why_not(case), base and why_not(base)):
        if reason:
            return {"skipped": reason}
    sides = {"ours": represented(case, work)}
    if base is not None:
        sides["rival"] = represented(base, work)
    elif rival_threads is not None:
        sides["rival"] = stock(case, work, rival_threads)
    for side in sides.values():
        side.update(WARM_UP if isinstance(side.model, RepresentedPPO) else 1)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            seconds[name].append(side.update())
    result: dict[str, Any] = {name: timings(values) for name, values in seconds.items()}
    # Kilobytes on Linux, bytes on macOS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result["memory_gb"] = peak * (1 if sys.platform == "darwin" else 1024) / 1e9
    if "rival" in sides:
        result["threads"] = sides["ours"].threads
        medians = [result[name]["median"] for name in ("rival", "ours")]
        result["ratio"] = medians[0] / medians[1] if base is None else medians[1] / medians[0]
        model = sides["ours"].model
        assert isinstance(model, RepresentedPPO)
        result["shares"] = shares(model, sides["ours"].transitions)
        result["floor"] = floor(model)
    return result


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    cases = {name: Case(**job.pop(name)) for name in ("case", "base") if job.get(name)}
    functions: dict[str, Callable[..., Any]] = {"measure": measure, "rival_threads": rival_threads}
    print(json.dumps(functions[job.pop("what")](**{**job, **cases})))
