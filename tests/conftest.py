"""Settings of all tests."""

import pytest
import torch as th


def pytest_configure() -> None:
    """For fixtures of whole modules as well, which come before those of a test."""
    th.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small networks are fastest on one thread, and only there is training reproducible bit for bit."""
    th.set_num_threads(1)
