"""Fixtures of the tests of reports."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium as gym
import pytest


@pytest.fixture(scope="package", autouse=True)
def registered() -> Iterator[None]:
    """Probes under ids."""
    names = ("Noisy", "Painted", "Forgetful")
    for name in names:
        gym.register(f"probe/{name}-v0", entry_point=f"tests.approval.probes:{name}", disable_env_checker=True)
    yield
    for name in names:
        del gym.registry[f"probe/{name}-v0"]
