"""Training that goes on in another process, compared with training that was never broken off: to the last bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_rmdp.common.packing import unpack
from tests.represented_ppo.runs import EVERY_CHECKPOINT, RUNS, train

#: Where a rollout begins, and where it ends, which is before its update; and within it
CHECKPOINTS = ("between", "end", "within")
CASES = [
    (name, checkpoint) for name in RUNS for checkpoint in (CHECKPOINTS if name.startswith(EVERY_CHECKPOINT) else ("end",))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all runs; one process goes on with all of them, since it takes seconds to start."""
    path = tmp_path_factory.mktemp("runs")
    for name in RUNS:
        train(name, path)
    command = [sys.executable, "-W", "error::UserWarning:sb3_rmdp", "-m", "tests.represented_ppo.runs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "lost" not in done.stderr
    return path


def assert_same(one: Any, other: Any, where: str = "") -> None:
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert list(one) == list(other), where
        for key, value in one.items():
            assert_same(value, other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for i, value in enumerate(one):
            assert_same(value, other[i], f"{where}[{i}]")
    elif isinstance(one, th.Tensor):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), where, strict=True)
    elif isinstance(one, (np.ndarray, float)):
        np.testing.assert_array_equal(one, other, where, strict=True)
    else:
        assert one == other, where


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize(("name", "checkpoint"), CASES)
def test_a_training_that_goes_on_in_another_process_is_the_unbroken_one(name: str, checkpoint: str, folder: Path) -> None:
    (file,) = (folder / name).glob(f"{checkpoint}*.resumed")
    unbroken, resumed = unpack((folder / name / "unbroken").read_bytes()), unpack(file.read_bytes())
    assert_same(resumed["end"], unbroken["end"])
    begin = resumed["rows"][0][0]
    assert_same(resumed["rows"], [row for row in unbroken["rows"] if row[0] >= begin])
