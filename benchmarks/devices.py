"""
Seconds per update on the CPU and on a GPU, of the same training.

    python -m benchmarks.devices

Both are timed in turn after one update to warm up, and the ratio of the medians counts: how many times as long the GPU takes.
Prints a row per case, and with ``--out`` writes them to a file with the versions and the names of both processors.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.performance.measure import DEFAULT_THREADS, Side, represented
from benchmarks.performance.report import PACKAGES
from benchmarks.performance.rows import GATHERING, QUICK_WORK, WORK, Case
from sb3_rmdp import RepresentedPPO
from sb3_rmdp.envs import VectorReward

#: Cases whose policies are perceptrons, by name
VECTORS = {
    "ResourceGathering, k = 3": Case(3, 25, env=GATHERING),
    "HalfCheetah, k = 5, n = 100": Case(5, 100),
    "HalfCheetah, k = 50, n = 1000": Case(50, 1000),
    "HalfCheetah, k = 5, n = 1 000 000, 111 features": Case(5, 1_000_000, n_features=111),
}
#: The one whose policies are convolutions
IMAGES = "4 images of 84 x 84, k = 4, n = 20"
#: Its updates are shorter: transitions per policy, transitions per policy and minibatch, epochs
IMAGE_WORK = {"n_steps": 128, "batch_size": 32, "n_epochs": 4}


def one_action_each(obs: Any, action: int, next_obs: Any, info: dict) -> np.ndarray:
    """Rewards of 20 agents: each is paid for one of the actions."""
    return (np.arange(20) % 6 == action).astype(np.float32)


def images(device: str, work: dict[str, Any]) -> Side:
    """
    :param device: of the networks
    :param work: arguments of the model that make an update
    :return: a training that sees images, as many as an Atari game shows at a time
    """

    def make() -> VectorReward:
        return VectorReward(FakeImageEnv(84, 84, n_channels=4, channel_first=True), one_action_each, n_agents=20)

    model = RepresentedPPO("CnnPolicy", DummyVecEnv([make] * 4), k=4, seed=0, device=device, **work)
    return Side(model, work["n_steps"] * 4, threads=DEFAULT_THREADS)


def cases(quick: bool) -> dict[str, Callable[[str], Side]]:
    """
    :param quick: whether updates are to be tiny
    :return: by name, what makes a training on a device
    """
    vectors, pictures = (QUICK_WORK, QUICK_WORK) if quick else (WORK, IMAGE_WORK)

    def of(case: Case) -> Callable[[str], Side]:
        return lambda device: represented(replace(case, device=device), vectors)

    return {name: of(case) for name, case in VECTORS.items()} | {IMAGES: lambda device: images(device, pictures)}


def main(argv: list[str] | None = None) -> int:
    """
    Command line.

    :param argv: arguments; by default those of the process
    :return: exit status
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.devices", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="what the CPU is compared with; cuda")
    parser.add_argument("--repeats", type=int, default=3, help="updates timed on either device; 3")
    parser.add_argument("--case", action="append", help="part of the names of cases to time, may be repeated; all of them")
    parser.add_argument("--out", type=Path, help="file to write, such as benchmarks/results/devices.json")
    parser.add_argument("--quick", action="store_true", help="tiny updates: figures mean nothing")
    arguments = parser.parse_args(argv)
    if arguments.repeats < 1:
        parser.error(f"--repeats {arguments.repeats} times nothing: choose 1 or more")
    known, parts = cases(arguments.quick), arguments.case or [""]
    wanted = {name: make for name, make in known.items() if any(part in name for part in parts)}
    if not wanted:
        parser.error(f"--case {' '.join(parts)}: choose parts of {'; '.join(known)}")
    on_gpu = arguments.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        parser.error("there is no GPU that this PyTorch can use; --device cpu compares the CPU with itself")

    report: dict[str, Any] = {
        "command": f"python -m benchmarks.devices --device {arguments.device} --repeats {arguments.repeats}"
        + "".join(f" --case {shlex.quote(part)}" for part in arguments.case or ()),
        "versions": {name: version(name) for name in PACKAGES},
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "device": torch.cuda.get_device_name() if on_gpu else arguments.device,
        "rows": [],
    }
    for name, make in wanted.items():
        sides = {"cpu": make("cpu"), "other": make(arguments.device)}
        seconds: dict[str, list[float]] = {where: [] for where in sides}
        for i in range(1 + arguments.repeats):
            for where, side in sides.items():
                taken = side.update()
                if i:
                    seconds[where].append(taken)
        cpu, other = (statistics.median(seconds[where]) for where in sides)
        report["rows"].append({"case": name, **seconds, "ratio": other / cpu})
        print(f"{name:50} {cpu:8.2f} s   {arguments.device} {other:8.2f} s   {other / cpu:6.2f}", flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
