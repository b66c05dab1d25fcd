"""Ctrl-C and errors in a training: the model so far is saved."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sb3_rmdp import RepresentedPPO

pytest.importorskip("rl_zoo3")

from tests.zoo.running import GRID, fork_workers, name_of, train


def load(run_folder: Path) -> RepresentedPPO:
    return RepresentedPPO.load(run_folder / f"{name_of(GRID)}.zip", device="cpu")


def calling(name: str, **arguments: Any) -> dict[str, Any]:
    """Hyperparameters with a callback of these tests."""
    return {"callback": [{f"tests.zoo.callbacks.{name}": arguments}]}


@pytest.fixture(autouse=True)
def _hearing_of_ctrl_c() -> Iterator[None]:
    """A shell has its background jobs ignore Ctrl-C, and tests may be one of them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("vec_env", ["dummy", "subproc"])
@pytest.mark.parametrize("at", [1, 64, 100])
def test_ctrl_c_ends_the_training_and_saves(
    at: int, vec_env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fork_workers(monkeypatch)
    before = signal.getsignal(signal.SIGINT)
    run_folder = train(tmp_path, params=calling("Interrupt", at=at), n_timesteps=10**6, vec_env=vec_env)
    out = capsys.readouterr().out
    # Told at that step or, where Python looks for signals too late for it, at the next
    (said,) = [line for line in out.splitlines() if line.startswith("Saved ")]
    assert said in [
        f"Saved {run_folder / name_of(GRID)}.zip after {3 * steps} timesteps" for steps in (at, at + 1)
    ] and said.endswith(f" {load(run_folder).num_timesteps} timesteps")
    assert "Stopping at the next step" in out and "model_card.md" in out
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupted_training_can_go_on(tmp_path: Path) -> None:
    run_folder = train(tmp_path, params=calling("Interrupt", at=100), n_timesteps=10**6)
    on = train(tmp_path, "-i", str(run_folder / f"{name_of(GRID)}.zip"), n_timesteps=192)
    assert load(on).num_timesteps == 192
    assert load(on).assignment.state_dict()["n_updates"] == load(run_folder).assignment.state_dict()["n_updates"] + 1


@pytest.mark.parametrize("error", [RuntimeError, ValueError])
def test_an_error_saves_the_model_and_is_not_hidden(
    error: type[Exception], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(error, match="the disk is full"):
        train(tmp_path, params=calling("Fail", at=100, error=error.__name__))
    run_folder = tmp_path / "logs" / "rppo" / f"{name_of(GRID)}_1"
    assert load(run_folder).num_timesteps == 300
    assert f"Saved {run_folder / name_of(GRID)}.zip after 300 timesteps" in capsys.readouterr().out
    assert (run_folder / name_of(GRID) / "config.yml").is_file()


def test_ctrl_c_while_the_card_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def interrupt(run_folder: Path, n_eval_episodes: int, trusted: bool) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr("sb3_rmdp.zoo.experiment.write_model_card", interrupt)
    run_folder = train(tmp_path, card=True)
    assert f"No card was written; later: sb3-rmdp card {run_folder}" in capsys.readouterr().out
    assert load(run_folder).num_timesteps == 384


def test_elsewhere_than_in_the_main_thread(tmp_path: Path) -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(train(tmp_path)))
    thread.start()
    thread.join(60)
    assert load(found[0]).num_timesteps == 384


def test_ctrl_c_in_a_terminal(tmp_path: Path) -> None:
    """All processes get the signal, workers included."""
    words = ["train", "--algo", "rppo", "--env", GRID, "-n", "1000000", "-f", str(tmp_path / "logs"), "--vec-env", "subproc"]
    words += ["--eval-freq", "-1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sb3_rmdp.zoo", *words, "-params", "n_steps:64", "batch_size:32", "n_epochs:1", "k:2"],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "total_timesteps" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    run_folder = tmp_path / "logs" / "rppo" / f"{name_of(GRID)}_1"
    assert process.returncode == 0 and "Traceback" not in out, out
    assert f"Saved {run_folder / name_of(GRID)}.zip after " in out and f"Wrote {run_folder / 'model_card.md'}" in out
    assert 128 <= load(run_folder).num_timesteps < 1000000


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    first = train(tmp_path, n_timesteps=192)
    left = first / ".sb3_rmdp-0123456789abcdef.tmp"
    left.write_bytes(b"half a model")
    assert train(tmp_path, n_timesteps=192) != first
    assert not left.exists()


def test_a_model_that_does_not_fit_on_the_disk_is_saved_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, elsewhere = RepresentedPPO.save, tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))

    def full(self: RepresentedPPO, path: Any, *args: Any, **kwargs: Any) -> None:
        if str(path).startswith(str(tmp_path / "logs")):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(self, path, *args, **kwargs)

    monkeypatch.setattr(RepresentedPPO, "save", full)
    with pytest.raises(SystemExit) as ended:
        train(tmp_path, n_timesteps=192)
    assert re.search(r"No space left.*The model is in .*elsewhere.*zip now: move it", str(ended.value.__cause__))
    (path,) = elsewhere.glob("sb3_rmdp-*/*.zip")
    assert RepresentedPPO.load(path, device="cpu").num_timesteps == 192
