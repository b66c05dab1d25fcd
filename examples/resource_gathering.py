"""
Three walkers for 25 agents: train on Resource Gathering, then show who is served by whom and on which tour.

    python examples/resource_gathering.py --out runs/demo
    tensorboard --logdir runs/demo/tensorboard

This is what ``make demo`` runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import gymnasium as gym
import torch
from stable_baselines3.common.utils import LinearSchedule

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.callbacks import AnnealCallback, WelfareProgressBarCallback
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
    parser.add_argument("--timesteps", type=int, default=450_000, help="transitions of all policies (default: 450_000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training (default: 0)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo"), help="folder of everything written (default: runs/demo)"
    )
    arguments = parser.parse_args(argv)
    out: Path = arguments.out

    torch.set_num_threads(1)  # fastest for small networks, and the same result at every run
    model = RepresentedPPO(
        "MlpPolicy",
        ENV_ID,
        k=K,
        learning_rate=LinearSchedule(5e-4, 1e-4, 1.0),
        ent_coef=5e-2,
        gamma=1.0,  # tours are paid when they end, whatever their length
        normalize_observations=False,  # they are between 0 and 1 already
        tensorboard_log=str(out / "tensorboard"),
        seed=arguments.seed,
        device="cpu",
    )
    model.learn(arguments.timesteps, callback=[AnnealCallback("ent_coef", 5e-2, 1e-3), WelfareProgressBarCallback()])
    model.save(out / "model")

    env = gym.make(ENV_ID)
    shape, home = env.get_wrapper_attr("shape"), env.get_wrapper_attr("home")
    samples = evaluate_welfare(model, env, n_eval_episodes=100, deterministic=False)
    result = evaluate_welfare(model, env, n_eval_episodes=2)
    print(f"\nActions sampled, as in training: {samples}")
    print(f"Likeliest actions, for service:  {result}")
    assert result.optimum is not None and result.share_of_optimum is not None
    print(f"Provable optimum, {K} policies:    {result.optimum:.2f}, reached to {100 * result.share_of_optimum:.1f} %")
    print("\nRepresentative of each agent on the map:")
    print("\n".join(" ".join(str(j) for j in row) for row in result.assignment.reshape(shape)))

    tours = [tour_of(model.representative(j), env) for j in range(K)]
    plot_tours(tours, shape, home, title=str(result), path=out / "tours.png")
    plot_assignment_map(result.assignment, shape, home, result.utilities, path=out / "assignment.png")
    print(f"\nWrote {out}/model.zip, {out}/tours.png, {out}/assignment.png and {out}/tensorboard")


if __name__ == "__main__":
    main()
