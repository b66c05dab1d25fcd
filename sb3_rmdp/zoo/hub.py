"""What RL Zoo's scripts for the Hugging Face hub need to work with the libraries of today, and with representatives."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from requests.exceptions import HTTPError
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm


@contextlib.contextmanager
def mended_hub() -> Iterator[None]:
    """
    While in here, RL Zoo's ``push_to_hub`` and ``load_from_hub`` find what they look for.

    RL Zoo 2.9 imports ``generate_metadata``, which its integration of the hub has no longer under this name. It evaluates 10
    episodes, which need be no whole cycles of representatives. And it knows that there are no statistics of VecNormalize by an
    error of requests, which the hub's library does not use any more.
    """
    integration: Any = importlib.import_module("huggingface_sb3")
    pushing: Any = importlib.import_module("huggingface_sb3.push_to_hub")  # as an attribute, this is a function
    evaluate, load = pushing._evaluate_agent, integration.load_from_hub

    def evaluate_cycles(
        model: BaseAlgorithm, eval_env: VecEnv, n_eval_episodes: int, is_deterministic: bool, local_path: Path
    ) -> tuple[float, float]:
        if isinstance(model, RepresentedOnPolicyAlgorithm):
            n_eval_episodes = -(-n_eval_episodes // model.k) * model.k
        return evaluate(model, eval_env, n_eval_episodes, is_deterministic, local_path)

    def load_or_say(repo_id: str, filename: str) -> str:
        try:
            return load(repo_id, filename)
        except LocalEntryNotFoundError:  # no connection, which says nothing of the file
            raise
        except EntryNotFoundError as error:
            raise HTTPError(f"{repo_id} has no file {filename} ({error})") from error

    def generate_metadata(*arguments: Any) -> dict[str, Any]:
        return pushing._generate_metadata(*arguments).to_dict()

    if not hasattr(pushing, "generate_metadata"):
        pushing.generate_metadata = generate_metadata
    pushing._evaluate_agent, integration.load_from_hub = evaluate_cycles, load_or_say
    try:
        with warnings.catch_warnings():
            # enjoy, run before in this process, imports what is run as a script here
            warnings.filterwarnings("ignore", ".*found in sys.modules after import of package", RuntimeWarning)
            yield
    finally:
        pushing._evaluate_agent, integration.load_from_hub = evaluate, load
