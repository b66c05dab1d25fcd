"""
A million agents and twenty representatives: train, save, load, assign, evaluate; time and memory of each.

    python benchmarks/million.py

Velocity windows of HalfCheetah on a grid of 111 features. Writes benchmarks/results/million.json. Few updates: this shows
what such a training takes, not what it reaches in the end.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.assignment import DEFAULT_ASSIGNMENT
from sb3_rmdp.vec_env import make_represented_vec_env

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("sb3_rmdp", "stable_baselines3", "gymnasium", "mujoco", "numpy", "torch")


class Steps:
    """Seconds and peak memory of what is done one after the other."""

    def __init__(self) -> None:
        self.steps: dict[str, dict[str, float]] = {}
        self._since = time.perf_counter()

    def done(self, name: str) -> None:
        """
        :param name: of what has just been done
        """
        # Kilobytes on Linux, bytes on macOS
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
        self.steps[name] = {"seconds": round(time.perf_counter() - self._since, 1), "peak_memory_gb": round(peak, 2)}
        print(f"{name:10s}{self.steps[name]['seconds']:8.1f} s, peak memory {peak:.2f} GB", flush=True)
        self._since = time.perf_counter()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="rmdp/HalfCheetahVelocity-v0", help="a velocity task")
    parser.add_argument("-n", type=int, default=1_000_000, help="number of agents")
    parser.add_argument("-k", type=int, default=20, help="number of representatives")
    parser.add_argument("--assignment", default=DEFAULT_ASSIGNMENT, help="name of the assignment")
    parser.add_argument("--features", type=int, default=111, help="speeds of the grid")
    parser.add_argument("--updates", type=int, default=20, help="of 2048 transitions per policy each")
    parser.add_argument("--steps", type=int, default=2048, help="transitions per policy and update")
    parser.add_argument("--episodes", type=int, default=2, help="per representative in the evaluation")
    parser.add_argument("--out", type=Path, default=RESULTS / "million.json")
    arguments = parser.parse_args()
    n, k, steps = arguments.n, arguments.k, Steps()
    env_kwargs: dict[str, Any] = {"n_agents": n, "n_features": arguments.features}
    env = make_represented_vec_env(arguments.env, k, seed=0, env_kwargs=env_kwargs)
    settings: dict[str, Any] = dict(assignment=arguments.assignment, seed=0, device="cpu", n_steps=arguments.steps)
    model = RepresentedPPO("MlpPolicy", env, k=k, **settings)
    steps.done("make")
    before = model.assignment.representatives
    model.learn(arguments.steps * k * arguments.updates, progress_bar=sys.stderr.isatty())
    steps.done("train")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "million.zip")
        model.save(path)
        size = path.stat().st_size / 1e6
        steps.done("save")
        loaded = RepresentedPPO.load(path, env, device="cpu")
        steps.done("load")
    served_by = loaded.assignment.representatives
    assert (served_by == model.assignment.representatives).all()
    loaded.assignment.update(1.0)
    steps.done("assign")
    result = evaluate_welfare(loaded, env, arguments.episodes, deterministic=False)
    steps.done("evaluate")
    print(f"zip file  {size:.1f} MB; {np.mean(before != served_by):.0%} of the agents were reassigned; {result}")
    report = {
        "command": f"python benchmarks/million.py {' '.join(sys.argv[1:])}".strip(),
        "versions": {name: version(name) for name in PACKAGES},
        "assignment": arguments.assignment,
        "n": n,
        "k": k,
        "n_features": arguments.features,
        "updates": arguments.updates,
        "zip_mb": round(size, 1),
        "reassigned": round(float(np.mean(before != served_by)), 4),
        "group_sizes": np.bincount(served_by, minlength=k).tolist(),
        "social_welfare": round(result.social_welfare, 3),
        "optimum": result.optimum,
        "steps": steps.steps,
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
