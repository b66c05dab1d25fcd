"""
An environment of one's own: a flat with one heating for twelve tenants, who would each like another temperature.

Shows what an environment needs (reward vectors, ``n_agents``), how to check it, and how to train and evaluate three
heating programmes on it.

    python examples/own_environment.py --timesteps 90_000 --seed 0 --out runs/thermostat
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.env_checker import check_env

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.envs import REWARD_VECTOR, check_represented_env, fingerprint, scalar_reward

K = 3


class Thermostat(gym.Env):
    """A room that loses its warmth to the outside; a step is a quarter of an hour, an action the power of the heating."""

    def __init__(self) -> None:
        self.wishes = np.linspace(16.0, 25.0, 12)  # degrees, one per tenant
        self.n_agents = len(self.wishes)
        self.population_id = fingerprint("thermostat", self.wishes)
        self.observation_space = spaces.Box(-50.0, 50.0, (2,), np.float32)  # inside and outside
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)  # from off to full power

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.outside = self.np_random.uniform(-5.0, 10.0)
        self.inside = self.np_random.uniform(10.0, 25.0)
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        power = 1.0 + float(action[0])
        self.inside += 0.1 * (self.outside - self.inside) + 2.5 * power
        # Every tenant is paid by this one step: 1 at the temperature of choice, 0 from three degrees away on
        rewards = np.maximum(1.0 - np.abs(self.inside - self.wishes) / 3.0, 0.0).astype(np.float32)
        return self._observe(), scalar_reward(rewards), False, False, {REWARD_VECTOR: rewards}

    def _observe(self) -> np.ndarray:
        return np.array([self.inside, self.outside], dtype=np.float32)


# An id lets the library make one copy per representative; a day has 96 quarters of an hour
gym.register("Thermostat-v0", entry_point=Thermostat, max_episode_steps=96)


def main(argv: Sequence[str] | None = None) -> None:
    """
    :param argv: command line, that of the process by default
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=90_000, help="transitions of all programmes (default: 90_000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/thermostat"), help="folder of the model")
    arguments = parser.parse_args(argv)

    env = gym.make("Thermostat-v0")
    check_env(env.unwrapped)  # is it an environment?
    check_represented_env(env)  # does it have agents?

    torch.set_num_threads(1)  # fastest for small networks, and the same result at every run
    model = RepresentedPPO(
        "MlpPolicy",
        env,
        k=K,
        learning_rate=1e-3,
        n_steps=480,  # five days of every programme per update
        batch_size=96,
        seed=arguments.seed,
        device="cpu",
        verbose=1,
    )
    model.learn(arguments.timesteps, log_interval=10)
    model.save(arguments.out / "model")

    result = evaluate_welfare(model, env, n_eval_episodes=10)
    print(f"{result}, where 96 would be everybody's wish at every step")
    for j in range(K):
        wishes = [f"{wish:.1f}" for wish in env.get_wrapper_attr("wishes")[model.representative(j).agents]]
        print(f"programme {j} serves who wants {', '.join(wishes)}")


if __name__ == "__main__":
    main()
