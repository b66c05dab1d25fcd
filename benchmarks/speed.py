"""
Seconds per update of RepresentedPPO against k stock PPOs one after the other: same environments, networks and work.

    python benchmarks/speed.py

One update is 2048 transitions per policy, 10 epochs, minibatches of 64 per policy. Both sides are timed in turn, so that a
machine that gets slower or faster meanwhile does not change the ratio; the ratio of the medians is what counts.
"""

from __future__ import annotations

import argparse
import statistics
import time

import gymnasium as gym
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_rmdp import RepresentedPPO


def seconds_per_update(model: BaseAlgorithm, timesteps: int) -> float:
    """
    :param model: a model that has been warmed up
    :param timesteps: of one rollout
    """
    start = time.perf_counter()
    model.learn(timesteps, reset_num_timesteps=False)
    return time.perf_counter() - start


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="rmdp/HalfCheetahVelocity-v0", help="gymnasium id")
    parser.add_argument("-k", type=int, default=5, help="number of representatives")
    parser.add_argument("--repeats", type=int, default=5, help="updates timed on each side, after one to warm up")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    k = arguments.k
    ours = RepresentedPPO("MlpPolicy", arguments.env, k=k, device="cpu", seed=0)
    stock = PPO("MlpPolicy", gym.make(arguments.env), device="cpu", seed=0)
    ours.learn(2048 * k)
    stock.learn(2048)
    times: dict[str, list[float]] = {"ours": [], "stock": []}
    for _ in range(arguments.repeats):
        times["ours"].append(seconds_per_update(ours, 2048 * k))
        times["stock"].append(k * seconds_per_update(stock, 2048))
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{arguments.env}, k = {k}, n = {ours.n_agents}, medians of {arguments.repeats} updates, one thread")
    print(f"RepresentedPPO      {medians['ours']:.2f} s per update of {k} policies")
    print(f"{k} stock PPOs        {medians['stock']:.2f} s")
    print(f"ratio               {medians['stock'] / medians['ours']:.2f}")


if __name__ == "__main__":
    main()
