"""Exporting a model: every representative as a stock PPO and as ONNX, in a folder that appears whole or not at all."""

from __future__ import annotations

import io
import platform
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import stable_baselines3
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp.commands import check_is_file, load_model, naming
from sb3_rmdp.common.files import model_file, read_model_data
from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm
from sb3_rmdp.common.representative import Representative
from sb3_rmdp.common.spaces import space_to_json
from sb3_rmdp.export.check import TOLERANCE, Reference, random_observations
from sb3_rmdp.export.graph import WRITERS, check_installed, input_name, open_session, run_session, trace, with_head
from sb3_rmdp.export.manifest import NAME, file_entry, sha256, to_text, verify
from sb3_rmdp.export.normalization import Stage, find_statistics, parts, stages_of
from sb3_rmdp.export.placing import repair, whole_folder
from sb3_rmdp.export.schema import ASSIGNMENT
from sb3_rmdp.export.signing import SIGNATURE, digits, read_private_key
from sb3_rmdp.export.stock import StockPPO, check_exportable
from sb3_rmdp.represented_ppo import RepresentedPPO

#: So many agents are listed in the manifest, more have a file of their own
LISTED = 100_000

#: Names of files that an export may consist of
OWN_FILES = re.compile(rf"representative_\d+\.(zip|onnx)|{'|'.join(map(re.escape, (NAME, SIGNATURE, ASSIGNMENT)))}")

#: Random observations that every file is tried on
N_CHECKS = 256


def export(
    model: RepresentedOnPolicyAlgorithm | str | Path,
    folder: str | Path,
    onnx: bool = True,
    vec_normalize: VecEnv | str | Path | None = None,
    force: bool = False,
    on_written: Callable[[int, int], None] | None = None,
    private_key: str | Path | None = None,
    trusted: bool = False,
) -> dict[str, Any]:
    """
    Write each representative as ``representative_0.zip``, which SB3's ``PPO.load`` opens without sb3_rmdp, and as
    ``representative_0.onnx``, both with normalisation of observations folded in, and ``manifest.json``.

    Every file is tried on random observations before the folder appears: its actions are those of the model up to a rounding
    error, :data:`~sb3_rmdp.export.check.TOLERANCE`. At every moment there is the earlier export or the new one, also if the
    process is killed; what killed ones have left is cleaned up first.

    :param model: a model or its file
    :param folder: where to; missing folders above it are made
    :param onnx: write ONNX as well
    :param vec_normalize: the VecNormalize that the model was trained under, or its file. Not needed while the model has the
        environment that it was trained in, nor for a file in its run folder of RL Zoo
    :param force: replace an earlier export
    :param on_written: called with the number of representatives that are written and tried, 0 to k, and k
    :param private_key: PEM file of an ed25519 key to sign the manifest with, not encrypted
    :param trusted: whether code in the files of the model and of VecNormalize may run
    :return: content of the manifest
    :raises ValueError: if the policy is of a class of the user's own, statistics are missing or do not fit, the folder holds
        something, the file is no model, a file is in the folder or would run code, or actions are not those of the model
    :raises FileNotFoundError: if there is no such model or key
    :raises ImportError: if ONNX is to be written, or the manifest signed, and packages are missing
    """
    target = Path(folder)
    given = {"the model": model, "the statistics of VecNormalize": vec_normalize, "the key": private_key}
    check_not_within(target, {name: Path(path) for name, path in given.items() if isinstance(path, (str, Path))})
    repair(target)
    check_target(target, force)
    if onnx:
        check_installed(*WRITERS)
    key = None if private_key is None else read_private_key(private_key)
    source: dict[str, Any] = {"file": None, "sha256": None}
    file: Path | None = None
    if not isinstance(model, RepresentedOnPolicyAlgorithm):
        file, model_bytes, model = read_model(model, trusted)
        source = {"file": file.name, "sha256": sha256(model_bytes)}
    check_exportable(model.policy)
    statistics = find_statistics(model, vec_normalize, file, trusted)
    stages = stages_of(model.policy, statistics)
    stock = StockPPO(model, stages)
    obs = random_observations(model.observation_space, N_CHECKS, stages)
    reference = Reference(model.policy, statistics, obs)
    graph = trace(stock.policy) if onnx else None

    rows: list[dict[str, Any]] = []
    with whole_folder(target, lambda: check_target(target, force)) as temporary:
        for index in range(model.k):
            if on_written is not None:
                on_written(index, model.k)
            stock.become(index)
            written = {"sb3": (f"representative_{index}.zip", stock.to_bytes())}
            if graph is not None:
                written["onnx"] = (f"representative_{index}.onnx", with_head(graph, stock.policy.action_net))
            files, differences = {}, {}
            for kind, (name, content) in written.items():
                (temporary / name).write_bytes(content)
                files[kind] = file_entry(name, content)
                differences[kind] = try_out(kind, (temporary / name).read_bytes(), reference, index, name)
            rows.append({**whom_it_serves(model, index), "files": files, "largest_difference": differences})
        if on_written is not None:
            on_written(model.k, model.k)
        manifest = {
            "versions": versions(onnx),
            "model": {**source, **about(model)},
            "population": model.population._asdict(),
            "observation_space": space_to_json(model.observation_space),
            "action_space": space_to_json(model.action_space),
            "normalization": [about_stage(stage) for stage in stages],
            "onnx_inputs": [input_name(key) for key in parts(model.observation_space)] if onnx else None,
            "values": None if stock.value_weights is None else "mean of the agents served, of all agents if there are none",
            "check": {"observations": N_CHECKS, "tolerance": TOLERANCE},
            "assignment": {"method": method_name(model), "file": write_assignment(model, temporary)},
            "representatives": rows,
            "signed_by": None if key is None else digits(key),
        }
        text = to_text(manifest).encode()
        (temporary / NAME).write_bytes(text)
        if key is not None:
            (temporary / SIGNATURE).write_bytes(key.sign(text))
        verified = verify(temporary)
    return verified


def read_model(path: str | Path, trusted: bool = False) -> tuple[Path, bytes, RepresentedPPO]:
    """
    :param path: file of a model, with or without ".zip"
    :param trusted: whether code in it may run
    :return: the file, what is in it, and the model, on the CPU
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if it is no model, or cannot be loaded
    """
    check_is_file(Path(path))
    file = model_file(path)
    content = file.read_bytes()
    with naming(file, "a model"):
        read_model_data(io.BytesIO(content), ("k", "n_agents", "assignment_method"), RepresentedPPO.__name__)
    return file, content, load_model(file, trusted=trusted, content=content)


def check_not_within(folder: Path, inputs: dict[str, Path]) -> None:
    """
    :param folder: where an export is to be
    :param inputs: files that it is made from, by what they are
    :raises ValueError: if one is in the folder, and would be gone with what it replaces
    """
    place = folder.resolve()
    for what, path in inputs.items():
        for name in (path, Path(f"{path}.zip")):
            if name.exists() and place in name.resolve().parents:
                raise ValueError(f"{name}, {what}, lies in {folder}, which the export replaces: give another folder")


def check_target(folder: Path, force: bool) -> None:
    """
    :param folder: where an export is to be
    :param force: whether it may replace an earlier one
    :raises ValueError: if something is there that must stay
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"{folder} is no folder: give another name")
    present = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    foreign = [name for name in present if not OWN_FILES.fullmatch(name)]
    if foreign:
        raise ValueError(f"{folder} holds {foreign[0]}, which is of no export: give a new folder")
    if present and not force:
        raise ValueError(f"{folder} holds an export already: give a new folder, or force=True, --force, to replace it")


def try_out(kind: str, content: bytes, reference: Reference, index: int, name: str) -> float:
    """
    :param kind: "sb3" or "onnx"
    :param content: of the file
    :param reference: what the model does
    :param index: of the representative
    :param name: of the file, for messages
    :return: largest difference of actions
    :raises ValueError: if it is too large
    """
    if kind == "onnx":
        found = run_session(open_session(content), reference.policy.observation_space, reference.raw)
    else:
        # Networks are built, with random weights, before they are filled
        with th.random.fork_rng(devices=[]):
            found = PPO.load(io.BytesIO(content), device="cpu").predict(reference.raw, deterministic=True)[0]
    difference = reference.difference(index, found)
    if not difference <= TOLERANCE:  # nor is nan
        raise ValueError(
            f"{name} would not act like the model: on {N_CHECKS} random observations its actions differ by up to "
            f"{difference:.2g}, where {TOLERANCE:g} is allowed. Nothing was written"
        )
    return difference


def whom_it_serves(model: RepresentedOnPolicyAlgorithm, index: int) -> dict[str, Any]:
    """
    :param model: a model
    :param index: of a representative
    :return: what the manifest tells of whom it serves
    """
    agents = Representative(model, index, model.k).agents
    return {"index": index, "n_agents": len(agents), "agents": agents.tolist() if model.n_agents <= LISTED else None}


def write_assignment(model: RepresentedOnPolicyAlgorithm, folder: Path) -> dict[str, Any] | None:
    """
    :param model: a model
    :param folder: of the export
    :return: entry of the file of who is served by whom, which is written if the agents are too many for the manifest
    """
    if model.n_agents <= LISTED:
        return None
    file = io.BytesIO()
    np.save(file, model.assignment.representatives.astype(np.min_scalar_type(model.k)))
    (folder / ASSIGNMENT).write_bytes(file.getvalue())
    return file_entry(ASSIGNMENT, file.getvalue())


def about(model: RepresentedOnPolicyAlgorithm) -> dict[str, Any]:
    """
    :param model: a model
    :return: what the manifest tells of it
    """
    return {
        "algorithm": type(model).__name__,
        "policy": type(model.policy).__name__,
        "k": model.k,
        "num_timesteps": model.num_timesteps,
    }


def about_stage(stage: Stage) -> dict[str, Any]:
    """
    :param stage: of normalisation
    :return: what the manifest tells of it
    """
    return {"by": stage.by, "key": stage.key or None, "clip": stage.limit}


def method_name(model: RepresentedOnPolicyAlgorithm) -> str:
    """
    :param model: a model
    :return: name of its assignment
    """
    method = model.assignment_method
    return method if isinstance(method, str) else method.__name__


def versions(onnx: bool) -> dict[str, str | None]:
    """
    :param onnx: whether it is of interest
    :return: versions of what the export was made with
    """
    from sb3_rmdp import __version__

    packages = {name: version(name) if onnx else None for name in ("onnx", "onnxruntime")}
    own = {"sb3_rmdp": __version__, "stable_baselines3": stable_baselines3.__version__}
    others = {"gymnasium": version("gymnasium"), "numpy": np.__version__, "torch": th.__version__}
    return {"python": platform.python_version(), **own, **others, **packages}
