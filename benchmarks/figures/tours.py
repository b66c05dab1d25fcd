"""
Tours of trained representatives in Resource Gathering (figure 1 of the paper), small enough to be kept with the results.

    python -m benchmarks.figures.tours benchmarks/results/figure1-models/*.zip

takes models that RepresentedPPO has saved, walks with each of their policies once, always by the likeliest action, and writes
benchmarks/results/figure1.json, of which `python -m benchmarks.figures` makes pictures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
from matplotlib.figure import Figure

from benchmarks.figures.data import BadResults
from sb3_rmdp import RepresentedPPO
from sb3_rmdp.plots import plot_tours

OUT = Path(__file__).parents[1] / "results" / "figure1.json"
ENV_ID = "rmdp/ResourceGathering-v0"
SCHEMA = 1


def tours_of(path: Path) -> dict[str, Any]:
    """
    :param path: zip file of a model, trained on the default grid
    :return: tours as (row, column) per representative, home first, who serves whom, and welfare of just these tours
    :raises BadResults: if the model was trained on something else
    """
    model = RepresentedPPO.load(path, device="cpu")
    assert model.k is not None
    env = gym.make(ENV_ID)
    if model.observation_space != env.observation_space or model.action_space != env.action_space:
        raise BadResults(f"{path} was not trained on {ENV_ID} with its default grid: pass models of figure 1's sweep")
    tours, returns = [], []
    for j in range(model.k):
        observation, info = env.reset()
        while "tour" not in info:
            action, _ = model.predict(observation, representative=j, deterministic=True)
            observation, _, _, _, info = env.step(action)
        tours.append([list(tile) for tile in info["tour"]])
        returns.append(info["reward_vector"])
    assignment = model.assignment.representatives.tolist()
    welfare = sum(float(returns[j][agent]) for agent, j in enumerate(assignment)) / len(assignment)
    return {
        "k": model.k,
        "seed": model.seed,
        "transitions_per_policy": model.num_timesteps // model.k,
        "welfare": round(welfare, 3),
        "bound": round(env.get_wrapper_attr("welfare_bound")(model.k), 3),
        "assignment": assignment,
        "tours": tours,
    }


def write_tours(models: Sequence[Path], out: Path) -> None:
    """
    :param models: zip files
    :param out: JSON to be written
    :raises BadResults: if a model was trained on something else, or two have as many policies
    """
    env = gym.make(ENV_ID)
    runs = sorted((tours_of(path) for path in models), key=lambda run: run["k"])
    if len({run["k"] for run in runs}) < len(runs):
        raise BadResults(f"models with {[run['k'] for run in runs]} policies: pass one for each number of policies")
    head = {"schema": SCHEMA, "env": ENV_ID, "shape": env.get_wrapper_attr("shape"), "home": env.get_wrapper_attr("home")}
    lines = ",\n  ".join(json.dumps(run) for run in runs)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(head)[:-1] + f', "runs": [\n  {lines}\n]}}\n', encoding="utf-8")


def read_tours(path: Path) -> dict[str, Any]:
    """
    :param path: JSON that :func:`write_tours` has written
    :return: its content
    :raises BadResults: if it is something else
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise BadResults(f"{path} is no JSON: {error}") from error
    if content.get("schema") != SCHEMA:
        raise BadResults(f"{path} has schema {content.get('schema')!r}, this version draws schema {SCHEMA}")
    return content


def plot_all(content: dict[str, Any]) -> dict[int, Figure]:
    """
    :param content: of the JSON
    :return: a figure by number of policies
    """
    shape, home = tuple(content["shape"]), tuple(content["home"])
    figures = {}
    for run in content["runs"]:
        tours = [[(row, col) for row, col in tour] for tour in run["tours"]]
        title = f"k = {run['k']}: welfare {run['welfare']:.2f} of at most {run['bound']:.2f}"
        titles = [f"{j}" if run["k"] > 1 else "one for all" for j in range(run["k"])]
        figures[run["k"]] = plot_tours(tours, shape, home, title=title, titles=titles)
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """
    Command line.

    :param argv: arguments; by default those of the process
    :return: exit status
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figures.tours", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="zip file of a model, one for each k")
    parser.add_argument("--out", type=Path, default=OUT, help="file to write; benchmarks/results/figure1.json")
    arguments = parser.parse_args(argv)
    try:
        write_tours(arguments.models, arguments.out)
    except (BadResults, FileNotFoundError) as error:
        parser.exit(1, f"{error}\n")
    print(f"wrote {arguments.out}")
    return 0


if __name__ == "__main__":
    main()
