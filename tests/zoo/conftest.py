"""Fixtures of the tests of RL Zoo's scripts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import pytest

from tests.zoo.running import WAITING


@pytest.fixture(autouse=True)
def without_windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Figures are drawn nowhere, and closed at the end."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="package", autouse=True)
def waiting() -> Iterator[None]:
    """The game with known welfare, under an id."""
    gym.register(WAITING, entry_point="tests.probes:Waiting", disable_env_checker=True)
    yield
    del gym.registry[WAITING]


@pytest.fixture
def short_rollouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials have rollouts as short as the search space knows; else a trial of some steps may well collect 4096."""
    optuna = pytest.importorskip("optuna")
    suggest_int = optuna.Trial.suggest_int

    def suggest(trial: Any, name: str, low: int, high: int, **options: Any) -> int:
        return suggest_int(trial, name, low, low if name == "n_steps_pow" else high, **options)

    monkeypatch.setattr(optuna.Trial, "suggest_int", suggest)
