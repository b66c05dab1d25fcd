"""The command ``sb3-rmdp sweep`` where it does not come to Ray: wrong input, dry runs, help."""

from __future__ import annotations

import csv
import json
import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch as th
from click.testing import CliRunner

from sb3_rmdp import cli

pytest.importorskip("ray")
from sb3_rmdp.sweep import scheduling
from sb3_rmdp.sweep.config import read_sweep
from sb3_rmdp.sweep.results import Results
from sb3_rmdp.sweep.running import train_and_evaluate, versions
from tests.sweep.commands import assert_bad_input, invoke, write_config


@pytest.mark.parametrize(
    ("keys", "options", "texts"),
    [
        (dict(enviroments=[]), [], ["own.yml: 'enviroments' is no key of a sweep: did you mean 'environments'?"]),
        (dict(environments=["rmdp/HoperVelocity-v0"]), [], ["did you mean rmdp/HopperVelocity-v0"]),
        (dict(algorithms=["ema"]), [], ["'ema' is no assignment: did you mean 'em'?"]),
        (dict(k=[4]), [], ["k=4 representatives for n_agents=3"]),
        (dict(k=[4]), ["--dry-run"], ["k=4 representatives for n_agents=3"]),
        ({}, ["--only", "k=3"], ["no run has k=3: choose among 2"]),
        ({}, ["--only", "colour=3"], ["'colour=3' selects nothing", "algorithm"]),
        ({}, ["--workers", "0"], ["0"]),
        ({}, ["--retries", "-1"], ["-1"]),
        ({}, ["--address", "nonsense"], ["'nonsense' is no address of a Ray cluster: give host:6379"]),
        ({}, ["--address", "localhost:abc"], ["is no address"]),
        ({}, ["--address", "127.0.0.1:1"], ["nobody answers at 127.0.0.1:1", "refused"]),
        ({}, ["--address", "ray://127.0.0.1:1"], ["nobody answers at ray://127.0.0.1:1"]),
        ({}, ["--address", "no-such-host.invalid:6379"], ["nobody answers at no-such-host.invalid:6379"]),
    ],
)
def test_bad_input(keys: dict[str, Any], options: list[str], texts: list[str], tmp_path: Path) -> None:
    config = write_config(tmp_path, "nothing", **keys)
    assert_bad_input(invoke(config, *options), *texts)
    assert list(tmp_path.iterdir()) == [config]


def test_ctrl_c_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    config = write_config(tmp_path, "nothing")
    monkeypatch.setattr("sb3_rmdp.sweep.running.check_runs", interrupted)
    result = invoke(config)
    assert (result.exit_code, result.stdout) == (130, "Stopped, while nothing was trained.\n")
    assert list(tmp_path.iterdir()) == [config]


def test_a_port_where_something_else_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scheduling.PATIENCE, "cluster", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        result = invoke(write_config(tmp_path, "nothing"), "--address", address)
    assert_bad_input(result, f"no Ray cluster answers at {address} within 3 s")
    assert not (tmp_path / "own.csv").exists()


@pytest.mark.parametrize("package", ["ray", "yaml"])
def test_what_is_not_installed(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_config(tmp_path, "nothing")
    monkeypatch.delitem(sys.modules, "sb3_rmdp.sweep.config")
    monkeypatch.setitem(sys.modules, package, None)
    assert_bad_input(invoke(config), 'not installed: pip install "sb3_rmdp[sweep]"')


def test_a_file_of_results_of_another_version(tmp_path: Path) -> None:
    config, results = write_config(tmp_path, "nothing"), tmp_path / "own.csv"
    results.write_text("schema,sweep,joules\n7,own,1\n")
    for options in ([], ["--dry-run"]):
        assert_bad_input(invoke(config, *options), "results are of schema '7', this version writes '1'", "--out")
    assert results.read_text() == "schema,sweep,joules\n7,own,1\n"


def test_no_file_and_no_permission(tmp_path: Path) -> None:
    assert_bad_input(invoke(tmp_path / "missing.yml"), "missing.yml", "does not exist")
    config = write_config(tmp_path, "nothing")
    (tmp_path / "file").touch()
    assert_bad_input(invoke(config, "--out", tmp_path / "file" / "x.csv"), "file")


def test_a_dry_run_leaves_nothing_behind(tmp_path: Path) -> None:
    config = write_config(tmp_path, "nothing", algorithms=["em", "random"], k=[1, 2], once=[1], seeds=2)
    result = invoke(config, "--dry-run", "--only", "seed=1")
    assert result.exit_code == 0, result.output
    lines = [re.sub(" [0-9a-f]{16} ", " ID ", line) for line in result.stdout.splitlines()]
    kinds = ((1, "em"), (2, "em"), (2, "random"))
    assert lines[:3] == [f"to do  ID nothing k={k} {name} seed=1, 64 transitions per policy" for k, name in kinds]
    assert lines[3] == f"3 runs, 0 of them done, in {tmp_path / 'own.csv'}"
    assert lines[4].startswith("What they cost is known when")
    assert list(tmp_path.iterdir()) == [config]


def test_results_of_other_versions_are_told(tmp_path: Path) -> None:
    config, results = write_config(tmp_path, "nothing"), tmp_path / "own.csv"
    (run,) = read_sweep(config).runs
    rows = [{**row, "sweep": "own"} for row in train_and_evaluate(run).rows]
    with Results(results) as file:
        file.append([{**row, "versions": json.dumps({**versions(), "torch": "1.0"})} for row in rows])
    result = invoke(config)
    assert result.exit_code == 0, result.output
    assert f"Note: 1 finished runs are of other versions: torch 1.0, now {th.__version__}" in result.stdout
    with results.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 1


def test_nothing_of_rl_zoo_is_needed() -> None:
    code = (
        "import sys, sb3_rmdp.sweep.scheduling as s; s.load_ray(); print({'rl_zoo3', 'optuna', 'matplotlib'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_help(tmp_path: Path) -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for option in ("--address", "--workers", "--out", "--only", "--retries", "--dry-run"):
        assert f"\n  {option} " in result.stdout
    # The example in it is one
    text = result.stdout[result.stdout.index("    environments:") : result.stdout.index("  All keys")]
    (tmp_path / "example.yml").write_text(textwrap.dedent(text))
    assert len(read_sweep(tmp_path / "example.yml").runs) == 90
    assert "sweep" in CliRunner().invoke(cli.main, ["--help"]).stdout
