"""Sweeps as people run them: whatever dies on the way, every run is in the file once, as if it had been trained by itself."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch as th

from sb3_rmdp import RepresentedPPO

pytest.importorskip("ray")

from sb3_rmdp.sweep import scheduling
from sb3_rmdp.sweep.config import read_sweep
from sb3_rmdp.sweep.progress import Board, Lines
from sb3_rmdp.sweep.results import read_results
from sb3_rmdp.sweep.running import train_and_evaluate
from tests.sweep.commands import SMALL, assert_bad_input, invoke, write_config

ROOT = Path(__file__).parents[2]
#: Seconds that a machine which is busy with other things may take
PATIENCE = 100.0


class Started:
    """
    A sweep in a process of its own, as from a terminal.

    :param arguments: of the command
    :param variables: of its environment
    """

    def __init__(self, *arguments: object, **variables: str):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sb3_rmdp.cli", "sweep", *map(str, arguments)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables},
            start_new_session=True,
            # A shell has its background jobs ignore Ctrl-C, and tests may be one of them
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def end(self) -> tuple[int, str, str]:
        """Wait; exit status, stdout and stderr."""
        try:
            out, err = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"still running:\n{out}\n{err}") from None
        assert "Traceback" not in out + err, out + err
        return self.process.returncode, out, err

    def wait_for(self, path: Path) -> str:
        """Content of a file that is to appear while the sweep runs."""
        end = time.monotonic() + PATIENCE
        while not path.exists():
            assert self.process.poll() is None and time.monotonic() < end, self.process.communicate()
            time.sleep(0.05)
        return path.read_text()


@pytest.fixture
def start() -> Iterator[Any]:
    """Starts sweeps that end with the test."""
    started: list[Started] = []

    def begin(*arguments: object, **variables: str) -> Started:
        started.append(Started(*arguments, **variables))
        return started[-1]

    yield begin
    for sweep in started:
        sweep.process.kill()
        sweep.process.communicate()  # closes its pipes


def wait_until_gone(pid: int) -> None:
    end = time.monotonic() + PATIENCE
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.05)


def runs_in(path: Path) -> list[str]:
    """Events of the runs in a file, once per row."""
    return [json.loads(row["env_kwargs"])["event"] for row in read_results(path)]


def without_seconds(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: text for name, text in row.items() if name != "seconds"} for row in rows]


def test_a_killed_sweep_resumes_and_runs_that_die_are_tried_again(
    tmp_path: Path, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, results = write_config(tmp_path, "nothing", "wait", checkpoints=[32, 64], save_models=True), tmp_path / "own.csv"
    killed = start(config, "--workers", 1)
    worker = int(killed.wait_for(tmp_path / "waiting"))
    assert runs_in(results) == ["nothing"] * 2
    assert psutil.Process(worker).status() != psutil.STATUS_ZOMBIE
    os.kill(killed.process.pid, signal.SIGKILL)
    # Nobody goes on behind its back
    wait_until_gone(worker)
    before = results.read_bytes()
    (tmp_path / "waiting").unlink()

    # The run that is done is left out; others are added, one of which fails whatever is tried
    write_config(tmp_path, "nothing", "wait", "raise once", "raise", checkpoints=[32, 64], save_models=True)
    resumed = start(config, "--workers", 1, "--retries", 1)
    worker = int(resumed.wait_for(tmp_path / "waiting"))
    os.kill(worker, signal.SIGKILL)
    (tmp_path / "go").touch()  # the second attempt need not wait
    status, out, _ = resumed.end()
    assert status == 1
    assert out.startswith("3 runs to do, 1 at a time\n")
    lines = [line for line in out.splitlines() if re.match(r" +\d/3 ", line)]
    told = [re.sub(r"\([^)]*\)|welfare .*", "...", line.strip()) for line in lines]
    error = "RuntimeError: the tenth step is one too many"
    assert told == [
        "0/3 wait k=2 episodes seed=0: its process died ...; trying again",
        "1/3 wait k=2 episodes seed=0: ...",
        f"1/3 raise once k=2 episodes seed=0: {error}; trying again",
        "2/3 raise once k=2 episodes seed=0: ...",
        f"2/3 raise k=2 episodes seed=0: {error}; trying again",
        f"3/3 raise k=2 episodes seed=0: {error}; giving up",
    ]
    assert out.endswith(
        f"3 of 4 runs are in {results}\n"
        "1 failed in every attempt; the same command tries them again:\n  raise k=2 episodes seed=0\n"
    )

    # Each of them once, the old ones untouched
    assert results.read_bytes().startswith(before)
    assert runs_in(results) == ["nothing"] * 2 + ["wait"] * 2 + ["raise once"] * 2
    rows = read_results(results)
    assert len({(row["run"], row["transitions_per_policy"]) for row in rows}) == 6
    # What a worker has measured is what is measured here
    plan = read_sweep(config)
    by_id = {run.id: run for run in plan.runs}
    here = train_and_evaluate(by_id[rows[0]["run"]], with_model=True)
    common = {"schema": "1", "sweep": "own", "checkpoints": "2"}
    as_text = [{**{name: str(value) for name, value in row.items()}, **common} for row in here.rows]
    for row in as_text:
        row["bound"] = ""  # unknown here
    assert without_seconds(rows[:2]) == without_seconds(as_text)
    assert {path.stem for path in (tmp_path / "own-models").iterdir()} == {row["run"] for row in rows}
    saved = RepresentedPPO.load(tmp_path / "own-models" / f"{rows[0]['run']}.zip", device="cpu")
    (tmp_path / "here.zip").write_bytes(here.model or b"")
    same = RepresentedPPO.load(tmp_path / "here.zip", device="cpu")
    th.testing.assert_close(dict(saved.policy.state_dict()), dict(same.policy.state_dict()), rtol=0, atol=0)

    # Those that are done do not even need Ray
    monkeypatch.delattr(scheduling, "connect")
    done = invoke(config, "--only", "env=nothing,wait,raise once")
    assert (done.exit_code, done.stdout) == (0, f"3 of 3 runs are in {results}\n")
    listed = invoke(config, "--dry-run").stdout.splitlines()
    assert [line.split()[0] for line in listed[:4]] == ["done", "done", "done", "to"]
    assert listed[4] == f"4 runs, 3 of them done, in {results}" and "of one core" in listed[5]
    assert read_results(results) == rows

    # Models that are not there are not made any more
    (tmp_path / "own-models" / f"{rows[0]['run']}.zip").unlink()
    done = invoke(config, "--only", "env=nothing,wait,raise once")
    note = f"Note: 1 finished runs have no model in {tmp_path / 'own-models'}: to have them, name another file by --out"
    assert (done.exit_code, done.stdout) == (0, f"{note}\n3 of 3 runs are in {results}\n")


@pytest.mark.parametrize("by", ["Ctrl-C", "SIGTERM"])
def test_ctrl_c_keeps_what_is_finished(by: str, tmp_path: Path, start: Any) -> None:
    config, results = write_config(tmp_path, "nothing", "wait"), tmp_path / "new" / "other.csv"
    sweep = start(config, "--workers", 1, "--out", results)
    worker = int(sweep.wait_for(tmp_path / "waiting"))
    if by == "Ctrl-C":
        os.killpg(sweep.process.pid, signal.SIGINT)  # as a terminal does
    else:
        sweep.process.terminate()
    status, out, err = sweep.end()
    assert status == 130 and "SIGTERM received" not in err
    assert out.splitlines()[-1].startswith(f"Stopped. What was finished is in {results}; the same command goes on")
    assert runs_in(results) == ["nothing"]
    wait_until_gone(worker)
    assert not (tmp_path / "own.csv").exists()


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Ray in this process, one run at a time."""
    monkeypatch.chdir(ROOT)
    for name, value in {"OMP_NUM_THREADS": "1", **scheduling.SETTINGS}.items():
        monkeypatch.setenv(name, value)  # as connecting does, but to be as before in the end
    scheduling.connect(None, 1)
    yield scheduling.load_ray()
    scheduling.disconnect()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_how_far_runs_are_that_are_underway(tmp_path: Path, ray: Any) -> None:
    config = write_config(tmp_path, "wait", hyperparams={**SMALL, "n_steps": 8, "batch_size": 8})
    waiting, seen, killed = tmp_path / "waiting", [], []

    def follow(done: float) -> None:
        seen.append(done)
        # The first of eight rollouts is over, and the tenth step is not
        if done == 0.125 and waiting.exists():
            if not killed:
                killed.append(int(waiting.read_text()))
                os.kill(killed[0], signal.SIGKILL)
                wait_until_gone(killed[0])  # or it might write the file once more
                waiting.unlink()
            elif 0.0 in seen[seen.index(0.125) :]:
                (tmp_path / "go").touch()

    events = list(scheduling.execute(read_sweep(config).runs, 1, 1, follow=follow))
    assert [type(event) for event in events] == [scheduling.Died, scheduling.Finished]
    # What an attempt had done that died is done no more
    assert [share for share, _ in groupby(seen)][:4] == [0.0, 0.125, 0.0, 0.125]
    assert seen[-1] == 0.0


def test_an_error_that_cannot_travel_is_told(tmp_path: Path, ray: Any) -> None:
    (died,) = scheduling.execute(read_sweep(write_config(tmp_path, "raise oddly")).runs, 1, 0)
    assert isinstance(died, scheduling.Died) and died.reason == "RuntimeError: OddError: the tenth step is odd"
    assert "probes.py" in died.traceback


def test_notes_outlive_their_process(ray: Any) -> None:
    board = Board(ray)
    one, other = board.teller("one"), board.teller("other")
    one(0.25)
    other(0.5)
    until(lambda: board.done(["one", "other", "not yet"]) == 0.75)
    ray.kill(board._actor, no_restart=False)

    # Its process may go on for a moment. Once it is gone, what nobody has told since is forgotten
    def told_again() -> bool:
        one(0.375)
        return (board.done(["one"]), board.done(["other"])) == (0.375, 0.0)

    until(told_again)


def test_in_a_terminal_there_is_a_bar(tmp_path: Path, start: Any) -> None:
    status, out, _ = start(write_config(tmp_path, "nothing"), "--workers", 1, FORCE_COLOR="1").end()
    assert status == 0 and "left:" in out and "0/1" in out
    assert runs_in(tmp_path / "own.csv") == ["nothing"]


def test_in_a_log_there_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    now = 1000.0
    monkeypatch.setattr("sb3_rmdp.sweep.progress.time.monotonic", lambda: now)
    lines = Lines(said.append, total=4)
    for minute, done in enumerate([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.5, 1.5, 1.5, 1.5, 1.5]):
        now = 1000.0 + 60.0 * minute
        if minute == 12:
            lines.reset()
        lines.note(done)
    assert said == [
        "0.0 of 4 runs after 5 min",
        "0.9 of 4 runs after 10 min, 34 min left",
        "1.5 of 4 runs after 17 min, 28 min left",
    ]


def test_on_a_cluster(tmp_path: Path, start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    head = """
import ray
ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=10**8, logging_level="ERROR")
print(ray.get_runtime_context().gcs_address, flush=True)
input()
"""
    token = dict(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="a" * 64)
    env = {**os.environ, **scheduling.SETTINGS, "PYTHONPATH": str(ROOT), **token}
    pipes: dict[str, Any] = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    config = write_config(tmp_path, "nothing")
    with subprocess.Popen([sys.executable, "-c", head], env=env, **pipes) as cluster:
        try:
            assert cluster.stdout is not None and cluster.stdin is not None
            address = cluster.stdout.readline().strip()
            with monkeypatch.context() as patch:
                patch.setitem(scheduling.PATIENCE, "cluster", 3.0)
                assert_bad_input(
                    invoke(config, "--address", address), f"no Ray cluster answers at {address}", "RAY_AUTH_TOKEN"
                )
            for name, value in token.items():
                monkeypatch.setenv(name, value)
            status, out, err = start(config, "--address", address).end()
            assert cluster.poll() is None  # it was not ours to end
            cluster.stdin.write("\n")
            cluster.stdin.flush()
            cluster.wait(PATIENCE)
        finally:
            cluster.kill()
    assert status == 0, out + err
    assert "1 runs to do, as many as the cluster takes at a time" in out
    assert runs_in(tmp_path / "own.csv") == ["nothing"]
