"""A page about a trained model: how well off its agents are, who is served by whom, how to use it and how it was made."""

from __future__ import annotations

import contextlib
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp import RepresentedPPO, WelfareEvaluation, evaluate_welfare
from sb3_rmdp.commands import load_model
from sb3_rmdp.common.report import plain, save_text, summarize, with_error
from sb3_rmdp.common.seeds import seed_evaluation
from sb3_rmdp.common.whole_files import check_target
from sb3_rmdp.envs import ResourceGatheringEnv
from sb3_rmdp.vec_env.episodes import EpisodeLengths
from sb3_rmdp.zoo.run_folder import RunFolder, read_run_folder

CARD = "model_card.md"
SEED = 0
#: Rows of the learning curve at most
CURVE_POINTS = 12
PACKAGES = ("sb3_rmdp", "stable-baselines3", "rl_zoo3", "gymnasium", "torch", "numpy")
PAPER = "[Personalized Reinforcement Learning with a Budget of Policies](https://doi.org/10.1609/aaai.v38i11.29169)"


def write_model_card(
    run_folder: str | Path, n_eval_episodes: int = 10, max_episode_steps: int | None = None, trusted: bool = False
) -> Path:
    """
    Evaluate the best model of a run (or the last, where none was kept as the best) and write ``model_card.md`` beside it.

    The card is markdown with a head as the Hugging Face hub reads it. Pictures go into the run folder as well:
    ``assignment.png``, and ``tours.png`` for Resource Gathering; without matplotlib there are none.

    :param run_folder: folder of a training of RL Zoo, e.g. "logs/rppo/rmdp-ResourceGathering-v0_1"; the card names it as it is
        given here
    :param n_eval_episodes: episodes per representative, at least 1, for likeliest actions and again for sampled ones
    :param max_episode_steps: steps that an episode may take, as for :func:`evaluate_welfare`
    :param trusted: whether code in the folder may run, see :func:`~sb3_rmdp.zoo.run_folder.read_run_folder`
    :return: the card
    :raises FileNotFoundError: if there is no such folder, or no model in it
    :raises ValueError: if it is no run folder, the model does not fit its environment, or it would run code and is not trusted
    :raises ImportError: if RL Zoo is not installed
    :raises OSError: if the card cannot be written there
    """
    check_target(Path(run_folder) / CARD)
    run = read_run_folder(run_folder, trusted)
    path = run.model_path
    # What is loaded may talk on stdout
    with contextlib.redirect_stdout(sys.stderr):
        model = load_model(path, device="cpu", trusted=trusted)
    env = run.make_env(n_envs=model.k, seed=SEED)  # so that representatives act side by side
    try:
        results = {}
        for name, deterministic in (("likeliest", True), ("sampled", False)):
            seed_evaluation(env, SEED)
            results[name] = evaluate_welfare(model, env, n_eval_episodes, deterministic, max_episode_steps)
        pictures = _draw(run.path, model, env, results["likeliest"])
        bound = "optimum" if _grid(env) else "upper bound"
    finally:
        env.close()
    parts = [
        _head(run, results["likeliest"]),
        _facts(run, model),
        _welfare(results, bound),
        _representatives(results["likeliest"]),
        *[f"![{text}]({name})" for name, text in pictures.items()],
        _curve(run),
        _usage(run, path),
        _training(run),
    ]
    return save_text("\n\n".join(part for part in parts if part) + "\n", run.path / CARD, ".md")


def _grid(env: VecEnv) -> ResourceGatheringEnv | None:
    """The grid world, if that is what it is: its optimum is exact, and it can be drawn as a map."""
    base = env.get_attr("unwrapped", indices=0)[0]
    return base if isinstance(base, ResourceGatheringEnv) else None


def _draw(folder: Path, model: RepresentedPPO, env: VecEnv, result: WelfareEvaluation) -> dict[str, str]:
    """Draw what the environment allows; returns file names with a description."""
    try:
        from sb3_rmdp import plots
        from sb3_rmdp.plots.style import save_figure
    except ModuleNotFoundError:  # an extra
        return {}
    grid = _grid(env)
    if grid is not None:
        tours = [_tour(model, env, j) for j in range(model.k)]
        figures = {
            "assignment.png": plots.plot_assignment_map(result.assignment, grid.shape, grid.home, result.utilities),
            "tours.png": plots.plot_tours(tours, grid.shape, grid.home),
        }
        texts = {"assignment.png": "Representative and utility of each agent", "tours.png": "Tours of the representatives"}
    else:
        with_targets = env.has_attr("targets") and np.shape(env.get_attr("targets", indices=0)[0]) == result.assignment.shape
        if with_targets:
            targets, label = env.get_attr("targets", indices=0)[0], "target"
        else:
            targets, label = result.agent_utilities, "utility under the own representative"
        figure = plots.plot_assignment_histogram(targets, result.assignment, k=model.k, xlabel=label)
        figures, texts = {"assignment.png": figure}, {"assignment.png": f"Agents by {label} and representative"}
    for name, figure in figures.items():
        save_figure(figure, folder / name)
    return texts


def _tour(model: RepresentedPPO, env: VecEnv, representative: int) -> list[tuple[int, int]]:
    infos: list[dict[str, Any]] = []
    obs, over, lengths = env.reset(), False, EpisodeLengths(env)
    while not over:
        action, _ = model.predict(obs, deterministic=True, representative=representative)  # type: ignore[arg-type]
        obs, _, dones, infos = env.step(action)
        lengths.add(dones)
        over = bool(dones[0])
    return infos[0]["tour"]


def _head(run: RunFolder, result: WelfareEvaluation) -> str:
    """The part between dashes: what the hub's lists and search show."""
    name = f"{RepresentedPPO.__name__} on {run.env_id}"
    welfare = {
        "type": "social_welfare",
        "name": "social welfare",
        "value": with_error(result.social_welfare, result.standard_error).replace("+-", "+/-"),
        "verified": False,
    }
    entry = {
        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
        "dataset": {"name": run.env_id, "type": run.env_id},
        "metrics": [welfare],
    }
    front = {
        "library_name": "stable-baselines3",
        "tags": [run.env_id, "deep-reinforcement-learning", "reinforcement-learning", "stable-baselines3", "sb3-rmdp"],
        "model-index": [{"name": RepresentedPPO.__name__, "results": [entry]}],
    }
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {name}"


def _facts(run: RunFolder, model: RepresentedPPO) -> str:
    method = model.assignment_method if isinstance(model.assignment_method, str) else model.assignment_method.__name__
    per_policy = model.num_timesteps // model.k
    rows = [
        ("environment", f"`{run.env_id}`"),
        *[(f"its `{name}`", f"`{plain(value)!r}`") for name, value in run.env_kwargs.items()],
        ("agents (users)", str(model.n_agents)),
        ("representatives (policies)", str(model.k)),
        ("assignment", f"`{method}`"),
        ("transitions until this model", f"{_count(model.num_timesteps)} in total, {_count(per_policy)} per policy"),
        ("seed of the training", str(model.seed)),
        ("model", f"`{run.model_path.name}`"),
    ]
    text = (
        f"{model.k} policies for {model.n_agents} users, and who is served by which: a represented MDP. The method is that of "
        f"Ivanov and Ben-Porat, {PAPER}, AAAI 2024, as implemented in "
        "`sb3_rmdp` on top of Stable-Baselines3."
    )
    return f"{text}\n\n{_table(('', ''), rows)}"


def _welfare(results: dict[str, WelfareEvaluation], bound: str) -> str:
    first = next(iter(results.values()))
    header = ["actions", "social welfare", "worst-off agent"]
    rows = []
    for name, result in results.items():
        row = [name, with_error(result.social_welfare, result.standard_error)]
        row += [f"{result.worst_utility:.2f} (agent {result.worst_agent})"]
        if result.share_of_optimum is not None:
            row += [f"{100 * result.share_of_optimum:.1f} %"]
        rows.append(row)
    if first.optimum is not None:
        header += [f"share of the {bound}, {first.optimum:.2f}"]
    return (
        "## Social welfare\n\n"
        "The mean over agents of their undiscounted return under their own representative, with its standard error over "
        f"episodes, {first.n_eval_episodes} per representative: it tells how well this model is known, not how much trainings "
        "differ. The worst-off agent is chosen by half of the episodes and measured in the other half. Likeliest actions are "
        f"the modes of the policies, sampled ones are drawn as in training.\n\n{_table(header, rows)}"
    )


def _representatives(result: WelfareEvaluation) -> str:
    rows = []
    for row in summarize(result):
        mean, worst = ("-", "-") if row.worst_agent is None else (f"{row.mean_utility:.2f}", f"{row.worst_utility:.2f}")
        worst += "" if row.worst_agent is None else f" (agent {row.worst_agent})"
        rows.append((str(row.index), str(row.n_agents), mean, worst, f"{row.mean_over_all:.2f}"))
    header = ("representative", "agents served", "their mean utility", "worst off of them", "mean utility of all agents")
    return f"## Representatives\n\nWith likeliest actions.\n\n{_table(header, rows)}"


def _curve(run: RunFolder) -> str:
    """Evaluations during the training, thinned out; nothing if there were none."""
    path = run.path / "evaluations.npz"
    if not path.is_file():
        return ""
    with np.load(path) as evaluations:
        timesteps, welfare = evaluations["timesteps"], evaluations["results"].mean(axis=1)
    shown = np.unique(np.linspace(0, len(timesteps) - 1, CURVE_POINTS).round().astype(int))
    rows = [(_count(timesteps[i]), f"{welfare[i]:.2f}") for i in shown]
    count = f"{len(rows)} of {len(timesteps)} evaluations" if len(rows) < len(timesteps) else "All evaluations"
    return f"## Learning curve\n\n{count} during the training.\n\n{_table(('transitions', 'social welfare'), rows)}"


def _usage(run: RunFolder, path: Path) -> str:
    folder, needs = run.path.as_posix(), _needs_trust(run)
    return f"""## Use it

```python
from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.zoo.run_folder import read_run_folder

run = read_run_folder({folder!r}{", trusted=True" if needs else ""})  # the folder of this page
env = run.make_env()  # a vec env, with arguments, wrappers and statistics of the training
model = RepresentedPPO.load(run.path / {path.name!r}, env=env, device="cpu")

agent = 0
obs = env.reset()
action, _ = model.predict(obs, deterministic=True, representative=model.representative_of(agent))
print(evaluate_welfare(model, env, n_eval_episodes=2))
```

From the command line:

```bash
sb3-rmdp evaluate {shlex.quote((run.path / path.name).as_posix())}{" --trusted" if needs else ""}
```"""


def _needs_trust(run: RunFolder) -> bool:
    """Whether its environment cannot be made without running code from the folder."""
    try:
        read_run_folder(run.path)
    except ValueError:
        return True
    return False


def _training(run: RunFolder) -> str:
    hyperparams = {key: value for key, value in run.hyperparams.items() if key != "normalize_kwargs"}
    versions = [("Python", platform.python_version()), *[(name, _version(name)) for name in PACKAGES]]
    text = f"## Hyperparameters\n\n```yaml\n{yaml.safe_dump(plain(hyperparams)).rstrip()}\n```"
    command = run.settings / "command.txt"
    if command.is_file():
        text += f"\n\n## Training\n\n```bash\n{_portable(command.read_text(encoding='utf-8').strip())}\n```"
    return f"{text}\n\n## Versions\n\nOf the packages with which this page was written.\n\n{_table(('', ''), versions)}"


def _portable(command: str) -> str:
    """
    >>> _portable("/home/me/.venv/bin/python3.11 /home/me/.venv/bin/sb3-rmdp train --algo rppo")
    'sb3-rmdp train --algo rppo'

    The command without the places of this machine's programs.
    """
    program, _, rest = command.partition(" ")
    script, _, arguments = rest.partition(" ")
    if script.startswith("/") and Path(script).suffix != ".py":
        return f"{Path(script).name} {arguments}".rstrip()
    return f"{Path(program).name} {rest}".rstrip()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _count(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _table(header: Any, rows: Any) -> str:
    """A table of markdown; numbers in its cells are texts already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
