"""Exports that act in several threads at once."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3.common.distributions import DiagGaussianDistribution

from sb3_rmdp.export import export, load_exported
from tests.common.test_serving import at_once, in_lockstep
from tests.export.models import ARM, FLOATS, untrained


def test_threads_get_the_actions_for_what_they_observe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = untrained("MlpPolicy", FLOATS, ARM)
    export(model, tmp_path / "service", onnx=False)
    one = load_exported(tmp_path / "service", "sb3").representative(0)
    seen = [np.full((rows, 3), value, np.float32) for rows, value in ((2, -1.5), (5, 1.5))]
    alone = [one.predict(obs)[0] for obs in seen]
    assert not np.allclose(alone[0][0], alone[1][0])
    in_lockstep(monkeypatch, DiagGaussianDistribution, ("mode",))
    for (found, _), expected in zip(at_once(*(partial(one.predict, obs) for obs in seen)), alone, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
