"""A full disk in the midst of a training: a warning, what was saved before stays, and nothing that is trained is lost."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, CheckpointCallback

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.callbacks import WelfareEvalCallback
from tests.kills import full_disk
from tests.probes import KnownAssignment

SMALL: dict[str, Any] = dict(k=2, n_steps=16, batch_size=16, n_epochs=1, device="cpu", seed=0)


class FullFrom(BaseCallback):
    """The disk is full at some steps."""

    def __init__(self, begin: int, end: int):
        super().__init__()
        self.begin, self.end, self.disk = begin, end, full_disk(1000)

    def _on_step(self) -> bool:
        if self.n_calls == self.begin:
            self.disk.__enter__()
        if self.n_calls == self.end:
            self.disk.__exit__(None, None, None)
        return True


def test_checkpoints_that_do_not_fit_are_missing_and_the_training_goes_on(tmp_path: Path) -> None:
    model = RepresentedPPO("MlpPolicy", KnownAssignment(), **SMALL)
    checkpoints = CheckpointCallback(10, str(tmp_path))
    with pytest.warns(UserWarning, match=r"the training goes on: .*File too large.*steps.zip") as told:
        model.learn(64, callback=CallbackList([FullFrom(15, 35), checkpoints]))
    assert [str(one.message).rpartition("model_")[2] for one in told] == ["20_steps.zip'", "30_steps.zip'"]
    assert model.num_timesteps == 64
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"rl_model_{n}_steps.zip" for n in (10, 40, 50, 60)]
    assert RepresentedPPO.load(tmp_path / "rl_model_60_steps.zip", device="cpu").num_timesteps == 60
    other = RepresentedPPO("MlpPolicy", KnownAssignment(), **SMALL).learn(64)
    assert all(bool((a == b).all()) for a, b in zip(model.policy.parameters(), other.policy.parameters(), strict=True))


def test_other_errors_of_callbacks_are_errors() -> None:
    class Fails(BaseCallback):
        def _on_step(self) -> bool:
            raise ConnectionResetError(errno.ECONNRESET, "a worker died")

    with pytest.raises(ConnectionResetError):
        RepresentedPPO("MlpPolicy", KnownAssignment(), **SMALL).learn(64, callback=Fails())


def test_a_model_that_is_saved_by_hand_tells_the_error_and_stays(tmp_path: Path) -> None:
    model = RepresentedPPO("MlpPolicy", KnownAssignment(), **SMALL).learn(64)
    with full_disk(1000), pytest.raises(OSError, match=r"model.zip"):
        model.save(tmp_path / "model")
    model.save(tmp_path / "model")
    assert RepresentedPPO.load(tmp_path / "model", device="cpu").num_timesteps == 64


def test_the_best_model_is_saved_as_soon_as_it_can_be(tmp_path: Path) -> None:
    model = RepresentedPPO("MlpPolicy", KnownAssignment(), **SMALL)
    evaluations = WelfareEvalCallback(
        KnownAssignment(), eval_freq=10, n_eval_episodes=1, log_path=tmp_path, best_model_save_path=tmp_path, verbose=0
    )
    with pytest.warns(UserWarning, match=r"was not saved, and the training goes on: .*tmp"):
        model.learn(64, callback=[FullFrom(5, 55), evaluations])
    with np.load(tmp_path / "evaluations.npz") as file:
        assert file["timesteps"].tolist() == [10, 20, 30, 40, 50, 60]
        last = file["results"][-1, 0]
    assert (tmp_path / "best_model.zip").exists() and evaluations._best_saved == last


def test_a_folder_that_may_not_be_written_to_is_told_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model = RepresentedPPO("MlpPolicy", KnownAssignment(), **SMALL)
    with pytest.raises(OSError, match=r"file is no folder: give another place"):
        model.learn(64, callback=WelfareEvalCallback(KnownAssignment(), log_path=tmp_path / "file" / "logs"))
    assert model.num_timesteps == 0
