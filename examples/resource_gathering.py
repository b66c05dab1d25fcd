"""
Three walkers for 25 agents: train on Resource Gathering, then show who is served by whom and on which tour.

    python examples/resource_gathering.py --timesteps 600_000 --seed 0 --out runs/resource_gathering
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import gymnasium as gym
import torch
from stable_baselines3.common.utils import LinearSchedule

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.representative import Representative
from sb3_rmdp.plots import plot_assignment_map, plot_tours

ENV_ID = "rmdp/ResourceGathering-v0"
K = 3


def tour_of(representative: Representative, env: gym.Env) -> list[tuple[int, int]]:
    """
    :param representative: who walks
    :param env: Resource Gathering
    :return: tiles of one episode as (row, column), home first
    """
    observation, _ = env.reset()
    over = False
    while not over:
        action, _ = representative.predict(observation, deterministic=True)
        observation, _, terminated, truncated, info = env.step(action)
        over = terminated or truncated
    return info["tour"]


def main(argv: Sequence[str] | None = None) -> None:
    """
    :param argv: command line, that of the process by default
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=600_000, help="transitions of all representatives (default: 600_000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/resource_gathering"), help="folder of model and pictures")
    arguments = parser.parse_args(argv)

    torch.set_num_threads(1)  # fastest for small networks, and the same result at every run
    model = RepresentedPPO(
        "MlpPolicy",
        ENV_ID,
        k=K,
        learning_rate=LinearSchedule(5e-4, 1e-4, 1.0),
        ent_coef=1e-2,
        gamma=1.0,  # tours are paid when they end, whatever their length
        normalize_observations=False,  # they are between 0 and 1 already
        seed=arguments.seed,
        device="cpu",
        verbose=1,
    )
    model.learn(arguments.timesteps, log_interval=10)
    model.save(arguments.out / "model")

    env = gym.make(ENV_ID)
    shape, home = env.get_wrapper_attr("shape"), env.get_wrapper_attr("home")
    # Environment and modes of the policies are deterministic, and two episodes show it by an error of 0
    result = evaluate_welfare(model, env, n_eval_episodes=2)
    print(result)
    print(result.assignment.reshape(shape))
    tours = [tour_of(model.representative(j), env) for j in range(K)]
    plot_tours(tours, shape, home, title=str(result), path=arguments.out / "tours.png")
    plot_assignment_map(result.assignment, shape, home, result.utilities, path=arguments.out / "assignment.png")
    print(f"wrote {arguments.out}/model.zip, tours.png and assignment.png")


if __name__ == "__main__":
    main()
