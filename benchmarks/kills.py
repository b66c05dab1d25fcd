"""
Kills programs at random moments, and looks at what they leave: nothing lost, nothing half written, and the same command
resumes to the result of an unbroken run.

    python -m benchmarks.kills --kills 60 --out benchmarks/results/kills.json

Each operation is run once to its end, which gives its duration and its result. Then it is started in a fresh folder, gets
SIGKILL at a moment drawn uniformly from its duration, and is started again. A run that ends before its moment is looked at
in the same way, but counts as no kill: its duration is shorter than was thought, and another moment is drawn.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from PIL import Image
from stable_baselines3.common.callbacks import CheckpointCallback

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.callbacks import KeepBestCallback
from sb3_rmdp.export import verify
from sb3_rmdp.service import record_episodes
from sb3_rmdp.sweep.running import versions

ENV = "rmdp/ResourceGathering-v0"
ENV_KWARGS: dict[str, Any] = dict(shape=(3, 3), home=(2, 1))
OF_ENV = ["--env", ENV, "--env-kwargs", "shape:(3,3)", "--env-kwargs", "home:(2,1)"]
STEPS = 6000

SWEEP = """
environments: [{id: rmdp/ResourceGathering-v0, kwargs: {shape: [3, 3], home: [2, 1]}, label: grid}]
k: [1, 2]
algorithms: [em]
seeds: 2
transitions_per_policy: 1024
hyperparams: {n_steps: 128}
results: results.csv
"""


class Operation(NamedTuple):
    """
    :param command: arguments of python, run in a folder of its own; the second run is the same
    :param result: what an unbroken run gives, from its folder, as plain data
    :param inputs: prepares the folder, by default nothing
    """

    command: list[str]
    result: Callable[[Path], Any]
    inputs: Callable[[Path, Path], None] = lambda folder, model: None


def train(folder: Path) -> None:
    """Train with checkpoints from the newest one that is there; the child process of the operation ``training``."""
    env = gym.make(ENV, **ENV_KWARGS)
    found = sorted(folder.glob("rl_model_*_steps.zip"), key=lambda path: int(path.stem.split("_")[2]))
    model = (
        RepresentedPPO.load(found[-1], env=env, device="cpu")
        if found
        else RepresentedPPO("MlpPolicy", env, k=2, n_steps=64, device="cpu", seed=0)
    )
    callbacks = [CheckpointCallback(150, str(folder)), KeepBestCallback()]
    model.learn(STEPS - model.num_timesteps, callback=callbacks, reset_num_timesteps=not found)
    model.save(folder / "final.zip")


def weights(folder: Path) -> Any:
    model = RepresentedPPO.load(folder / "final.zip", device="cpu")
    return {name: value.double().sum().item() for name, value in model.policy.state_dict().items()}


def numbers(name: str, *left_out: str) -> Callable[[Path], Any]:
    """A JSON file but for entries that tell times, files and versions."""

    def without(content: Any) -> Any:
        if isinstance(content, list):
            return [without(item) for item in content]
        if isinstance(content, dict):
            return {key: without(item) for key, item in content.items() if key not in left_out}
        return content

    return lambda folder: without(json.loads((folder / name).read_text()))


def rows(folder: Path) -> Any:
    with (folder / "results.csv").open(newline="") as file:
        found = [{key: value for key, value in row.items() if "second" not in key} for row in csv.DictReader(file)]
    return sorted(found, key=str)


def arrays(folder: Path) -> Any:
    with np.load(folder / "episodes.npz", allow_pickle=False) as archive:
        return {name: archive[name].tolist() for name in archive.files if archive[name].dtype.kind in "if"}


def newest_model(folder: Path) -> Any:
    models = sorted(folder.rglob("*.zip"))
    for path in models:
        RepresentedPPO.load(path, device="cpu")
    return bool(models)


def exported(folder: Path) -> Any:
    verify(folder / "service")
    manifest = json.loads((folder / "service" / "manifest.json").read_text())
    return [row["agents"] for row in manifest["representatives"]]


def with_model(folder: Path, model: Path) -> None:
    shutil.copy(model, folder / "model.zip")


def with_export(folder: Path, model: Path) -> None:
    with_model(folder, model)
    subprocess.run([sys.executable, *CLI, "export", "model.zip", "-o", "service"], cwd=folder, check=True, capture_output=True)


def record(folder: Path) -> None:
    model = RepresentedPPO.load(folder / "model.zip", device="cpu")
    record_episodes(model, gym.make(ENV, **ENV_KWARGS), n_episodes=600, seed=0).save(folder / "episodes.npz")


CLI = ["-c", "import sys; from sb3_rmdp.cli import main; sys.exit(main())"]
SELF = ["-m", "benchmarks.kills", "--child"]
DATES = ("date", "created", "seconds", "versions", "path", "file", "sha256", "command", "out")
ZOO = ["train", "--algo", "rppo", "--env", ENV, "-n", "4096", "-params", "n_steps:256", "--save-freq", "512", "-f", "logs"]

OPERATIONS = {
    "training": Operation([*SELF, "train"], weights),
    "zoo": Operation([*CLI, *ZOO, "--eval-freq", "2048", "--seed", "0"], newest_model),
    "sweep": Operation([*CLI, "sweep", "sweep.yml"], rows, lambda folder, _: _write(folder / "sweep.yml", SWEEP)),
    "budget": Operation(
        [*CLI, "budget", ENV, *OF_ENV[2:], "-k", "1,2", "-p", "n_steps:64", "--transitions", "2048", "--out", "budget"],
        numbers("budget/budget.json", *DATES),
    ),
    "report": Operation(
        [*CLI, "report", "model.zip", *OF_ENV, "--episodes", "3", "--json", "numbers.json"],
        numbers("numbers.json", *DATES),
        with_model,
    ),
    "export": Operation([*CLI, "export", "model.zip", "-o", "service", "--force"], exported, with_export),
    "recording": Operation([*SELF, "record"], arrays, with_model),
}


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def start(operation: Operation, folder: Path) -> subprocess.Popen:
    root = str(Path(__file__).resolve().parent.parent)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([root, *sys.path])}
    quiet: Any = dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return subprocess.Popen([sys.executable, *operation.command], cwd=folder, env=env, start_new_session=True, **quiet)


def broken_files(folder: Path) -> list[str]:
    """Files under their final names that are not whole."""
    readers: dict[str, Callable[[Path], Any]] = {
        ".zip": lambda path: zipfile.ZipFile(path).testzip() and 1 / 0,
        ".npz": lambda path: zipfile.ZipFile(path).testzip() and 1 / 0,
        ".json": lambda path: json.loads(path.read_text()),
        ".html": lambda path: path.read_text().rstrip().endswith("</html>") or 1 / 0,
        ".png": lambda path: Image.open(path).verify(),
    }
    broken = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in readers and not is_temporary(path):
            try:
                readers[path.suffix](path)
            except Exception as error:
                broken.append(f"{path.relative_to(folder)}: {type(error).__name__}")
    return broken


def is_temporary(path: Path) -> bool:
    return path.name.startswith(".") or ".tmp" in path.name


def temporaries(folder: Path) -> list[str]:
    return [
        str(path.relative_to(folder)) for path in folder.rglob("*") if is_temporary(path) and not path.name.endswith(".lock")
    ]


def kill_once(operation: Operation, model: Path, after: float, whole: Any) -> dict[str, Any]:
    """Kill an operation after some seconds, and run it again."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        operation.inputs(folder, model)
        before = None if operation.inputs is not with_export else operation.result(folder)
        process = start(operation, folder)
        time.sleep(after)
        was_running = process.poll() is None
        if was_running:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        found: dict[str, Any] = {"killed": was_running, "broken": broken_files(folder), "left": len(temporaries(folder))}
        if before is not None:
            found["lost"] = operation.result(folder) != before
        again = start(operation, folder)
        _, said = again.communicate()
        found["resumed"] = again.returncode == 0
        if again.returncode:
            found["error"] = said.decode(errors="replace").strip().splitlines()[-1:]
        else:
            found["same"] = operation.result(folder) == whole
        found["left_after"] = temporaries(folder)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, help="how many that strike, shared among the operations")
    parser.add_argument("--only", nargs="+", choices=sorted(OPERATIONS), help="operations, by default all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    parser.add_argument("--child", choices=["train", "record"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        {"train": train, "record": record}[arguments.child](Path.cwd())
        return
    names = arguments.only or list(OPERATIONS)
    random_numbers, results, baselines, number = random.Random(arguments.seed), [], {}, 0
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "model.zip"
        env = gym.make(ENV, **ENV_KWARGS)
        RepresentedPPO("MlpPolicy", env, k=2, n_steps=64, device="cpu", seed=0).learn(2048).save(model)
        while number < arguments.kills:
            operation_name = names[number % len(names)]
            operation = OPERATIONS[operation_name]
            if operation_name not in baselines:
                with tempfile.TemporaryDirectory() as folder:
                    operation.inputs(Path(folder), model)
                    began = time.perf_counter()
                    process = start(operation, Path(folder))
                    _, said = process.communicate()
                    if process.returncode:
                        raise SystemExit(f"{operation_name} fails unbroken: {said.decode()[-2000:]}")
                    baselines[operation_name] = time.perf_counter() - began, operation.result(Path(folder))
            seconds, whole = baselines[operation_name]
            after = random_numbers.uniform(0.2, 1.0) * seconds
            found = kill_once(operation, model, after, whole)
            results.append({"operation": operation_name, "after": round(after, 2), "of": round(seconds, 2), **found})
            print(json.dumps(results[-1]), flush=True)
            number += found["killed"]
            if not found["killed"]:
                baselines[operation_name] = after, whole
    bad = [row for row in results if row["broken"] or row["left_after"] or row.get("lost") or not row.get("same")]
    late = len(results) - arguments.kills
    print(f"{arguments.kills} killed while running, {late} ended before; {len(bad)} with a fault")
    if arguments.out:
        command = f"python -m benchmarks.kills --kills {arguments.kills} --seed {arguments.seed}"
        content = {"command": command, "versions": versions(), "faults": len(bad), "kills": results}
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
