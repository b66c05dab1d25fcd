"""
Whatever a command is given, it ends with one line that says what is wrong, and replaces nothing that was there.

Argument lists are drawn from values that are right, wrong, damaged, or of another option. ``SB3_RMDP_EXAMPLES=2000`` tries
more of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_util import make_vec_env

from sb3_rmdp import RepresentedPPO, cli, commands
from sb3_rmdp.export import export
from sb3_rmdp.service import record_episodes
from tests.test_cli import assert_bad_input

GRID = "rmdp/ResourceGathering-v0"
KWARGS: dict[str, Any] = dict(shape=(3, 3), home=(2, 1))

EXAMPLES = int(os.environ.get("SB3_RMDP_EXAMPLES", "100"))

#: Files that are no models any more
DAMAGED = ("torn", "text", "swapped", "emptied", "deep", "other", "encrypted")

#: What no option takes, or few; numbers that an option takes are small, so that nothing takes long
WRONG = (
    *["", " ", "-1", "0", "nan", "inf", "-inf", "1.5", "1e3", "100000000000000000000", "0x1", "\u0661\u0662", "None", "[]"],
    *["\u00fc\u4e16\u754c", "a\nb", "a" * 300, "..", ".", "/", "~", "-", "--", "%s", "$HOME", "*", "x:y", ":", "a.b:c"],
    *["CartPole-v1", "rmdp/ResourceGathring-v0", "nowhere:Env-v0", "os:Env-v0", "meta", "mps", "cuda:99", "cpu:x"],
    *[f"n_agents:{10**13}", "shape:(0,0)", "shape:(-1,3)", "home:(9,9)", "shape:" + "[" * 500, "k=", "seed=x"],
)

#: What an option takes; paths are of files that there are
RIGHT: dict[str, list[str]] = {
    "model": [
        "model.zip",
        "model",
        "torn.zip",
        "encrypted.zip",
        "swapped.zip",
        "emptied.zip",
        "text.zip",
        "run/best_model.zip",
    ],
    "models": ["model.zip", "run/best_model.zip"],
    "env_id": [GRID],
    "env_option": [GRID],
    "env_kwargs": ["shape:(3,3)", "home:(2,1)"],
    "episodes": ["1", "2"],
    "episodes_file": ["episodes.npz", "torn.npz", "new.npz"],
    "record": ["2"],
    "seeds": ["1"],
    "seed": ["3"],
    "n_envs": ["1", "2"],
    "device": ["cpu"],
    "weights": ["users.csv", "torn.npz"],
    "scores": ["scores.csv"],
    "reward": ["math:hypot", "math:nothing"],
    "confidence": ["0.9"],
    "best_possible": ["10"],
    "statistics": ["text.zip"],
    "out": ["out/new", "service"],
    "output": ["out/report.html"],
    "json_file": ["-", "out/result.json"],
    "csv_file": ["-", "out/result.csv"],
    "plot": ["out/plot.png"],
    "folder": ["service", "torn_service"],
    "run_folder": ["run", "torn_run"],
    "digest": ["0" * 16],
    "private_key": ["key.pem"],
    "public_key": ["key.pem"],
    "config": ["grid.yml", "torn.yml"],
    "only": ["k=1", "seed=0"],
    "title": ["Title"],
    "workers": ["1"],
    "retries": ["0"],
}

#: Options that make a command quick, or one that would take long impossible
ALWAYS: dict[str, list[str]] = {
    "evaluate": ["--episodes", "1"],
    "report": ["--episodes", "1", "--seeds", "1", "--no-stress", "--no-frames"],
    "export": ["--no-onnx"],
    "sweep": ["--dry-run"],
    "card": ["--episodes", "1"],
}

#: Not drawn: they would make it slow, or start other programs
LEFT_OUT = {"onnx", "stress", "frames", "dry_run", "address", "help", "ks", "transitions"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one file of each kind, some of them damaged, and an empty folder for results."""
    path = tmp_path_factory.mktemp("line")
    vec_env = make_vec_env(GRID, 2, env_kwargs=KWARGS)
    model = RepresentedPPO("MlpPolicy", vec_env, k=2, n_steps=16, batch_size=16, device="cpu", seed=0)
    model.save(path / "model.zip")
    content = (path / "model.zip").read_bytes()
    (path / "torn.zip").write_bytes(content[: len(content) // 2])
    (path / "text.zip").write_text("no zip file")
    with zipfile.ZipFile(path / "model.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    variants: dict[str, dict[str, bytes]] = {
        "swapped": {**members, "policy.pth": members["pytorch_variables.pth"]},
        "emptied": {**members, "policy.pth": b""},
        "deep": {**members, "data": b"[" * 100_000},
        "other": {**members, "data": json.dumps({"k": "x", "n_agents": None, "assignment_method": []}).encode()},
    }
    for name, parts in variants.items():
        with zipfile.ZipFile(path / f"{name}.zip", "w") as archive:
            for member, data in parts.items():
                archive.writestr(member, data)
    # The flag of an encrypted member, and a method of compression that there is not
    flagged = bytearray(content)
    for place in (i for i in range(len(content) - 4) if content[i : i + 4] in (b"PK\1\2", b"PK\3\4")):
        flagged[place + (8 if content[place + 2] == 1 else 6)] |= 1
    (path / "encrypted.zip").write_bytes(flagged)
    record_episodes(model, vec_env, n_episodes=2).save(path / "episodes.npz")
    (path / "torn.npz").write_bytes((path / "episodes.npz").read_bytes()[:-500])
    (path / "users.csv").write_text(",".join("1" * 9) + "\n")
    (path / "scores.csv").write_text("representative,episode,score\n0,0,1\n1,0,2\n")
    (path / "grid.yml").write_text(
        f"environments: [{GRID}]\nk: [1]\nalgorithms: [em]\nseeds: 1\ntransitions_per_policy: 1024\n"
    )
    (path / "torn.yml").write_text("environments: [" + "[" * 1000)
    (path / "key.pem").write_text("no key")
    export(model, path / "service", onnx=False)
    export(model, path / "torn_service", onnx=False)
    (path / "torn_service" / "representative_0.zip").write_bytes(b"")
    config = f"!!python/object/apply:collections.OrderedDict\n- - - env_kwargs\n    - {json.dumps(KWARGS)}\n"
    for name, text in (("run", config), ("torn_run", "[")):
        settings_folder = path / name / GRID.replace("/", "-")
        settings_folder.mkdir(parents=True)
        (settings_folder / "config.yml").write_text(text)
        (settings_folder / "args.yml").write_text(f"env: {GRID}\n")
        (path / name / "best_model.zip").write_bytes(content)
    (path / "out").mkdir()
    return path


@pytest.fixture(autouse=True)
def within(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are called in the folder."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MPLBACKEND", "Agg")


def invoke(*arguments: object) -> Result:
    """
    :param arguments: of the command line
    :return: exit code and output
    """
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def inputs(folder: Path) -> dict[str, str]:
    """
    :param folder: with files of all kinds
    :return: hashes of those that no command may change; a run folder gets a card
    """
    results = ("out", "runs", "report.html", "new.npz", "model-export")
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in results and path.suffix not in (".md", ".png")
    }


@st.composite
def argument_lists(draw: st.DrawFn) -> list[str]:
    """A command of our own with arguments that are right or wrong."""
    name = draw(st.sampled_from(sorted(name for names in cli.SECTIONS.values() for name in names)))
    words = [name, *ALWAYS.get(name, [])]
    # Values of other options are wrong in another way
    others = st.sampled_from([value for values in RIGHT.values() for value in values])
    wrong = st.one_of(st.sampled_from(WRONG), others, st.text(max_size=6))
    positional: list[str] = []
    for parameter in cli.main.commands[name].params:
        if parameter.name in LEFT_OUT:
            continue
        right = st.sampled_from(RIGHT.get(str(parameter.name), ["1"]))
        # No number of episodes that is right and large
        chosen = wrong.filter(lambda text: not text.isdecimal() or len(text) < 2 or len(text) > 15)
        value = draw(st.one_of(right, right, chosen))
        if isinstance(parameter, click.Argument):
            # To train several models takes long
            positional.append(draw(chosen.filter(lambda text: text != GRID)) if name == "budget" else value)
        elif parameter.required or draw(st.booleans()):
            option = parameter.opts[0]
            words += [option] if getattr(parameter, "is_flag", False) else [option, value]
    return [*words, *positional]


@settings(max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(arguments=argument_lists())
def test_every_argument_list_ends_in_one_line(folder: Path, arguments: list[str]) -> None:
    before = inputs(folder)
    result = invoke(*arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), (arguments, result.exception)
    assert "Traceback" not in result.output and result.exit_code in (0, 1, 2), arguments
    if result.exit_code:
        lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1 and len(lines[0]) > len("Error: ") + 5, (arguments, result.stderr)
    assert inputs(folder) == before, arguments


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_models_are_named(name: str) -> None:
    path = f"{name}.zip"
    of_env = ["--env", GRID, "--env-kwargs", "shape:(3,3)", "--env-kwargs", "home:(2,1)"]
    for command in (
        ["evaluate", path, *of_env],
        ["report", path, *of_env, "-o", "out/r.html"],
        ["assign", path, "--episodes", "episodes.npz", "--weights", "users.csv"],
        ["budget", "--models", path, "--no-plot", *of_env],
        ["export", path, "--no-onnx", "-o", "out/svc"],
    ):
        assert_bad_input(invoke(*command), path)


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["export", ""], ["MODEL", "names no file"]),
        (["evaluate", "", "--env", GRID], ["MODEL", "names no file"]),
        (["export", "model.zip", "-o", ""], ["--out", "names no folder"]),
        (["evaluate", "model.zip", "--env", GRID, "--device", "meta"], ["device='meta' is none"]),
        (["evaluate", "model.zip", "--env", GRID, "--device", "mps"], ["device='mps' is none"]),
        (["budget", GRID, "--device", "meta"], ["device='meta' is none"]),
        (["evaluate", "model.zip", "--env", GRID, "--episodes", 10**20], ["--episodes", "1<=x<=1000000"]),
        (["evaluate", "model.zip", "--env", GRID, "--n-envs", 10**9], ["--n-envs", "1<=x<=10000"]),
        (["report", "model.zip", "--env", GRID, "--seeds", 10**20], ["--seeds", "1<=x<=1000000"]),
        (["budget", GRID, "--transitions", 10**20], ["--transitions", "1<=x<="]),
        (["evaluate", "model.zip", "--env", GRID, "--env-kwargs", "shape:" + "(" * 1000], ["shape="]),
        (["evaluate", "model.zip", "--env", GRID, "--env-kwargs", "shape:(10000000,10000000)"], ["Unable to allocate"]),
        (["budget", GRID, "-k", "1", "-p", "policy:CnnPolicy", "--no-plot", "--out", "out/cnn"], ["image"]),
        (["sweep", "torn.yml", "--dry-run"], ["torn.yml"]),
        (["card", ""], ["names no folder"]),
    ],
    ids=str,
)
def test_wrong_words_are_named(arguments: list[object], texts: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert all(text in line for text in texts), line


def test_ray_that_cannot_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from sb3_rmdp.sweep import scheduling

    def fail(*_: object) -> None:
        raise Exception("The current node timed out during startup.\nThis could happen ...")

    monkeypatch.setattr(scheduling, "connect", fail)
    result = invoke("sweep", "grid.yml", "--out", "out/grid.csv")
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "Ray cannot be started on this machine: Exception: The current node timed out during startup." in line


OF_ENV = ["--env", GRID, "--env-kwargs", "shape:(3,3)", "--env-kwargs", "home:(2,1)", "--episodes", "1"]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["evaluate", "model.zip", *OF_ENV, "--json", "model.zip"], "--json model.zip would replace model.zip"),
        (["evaluate", "model", *OF_ENV, "--json", "./out/../model.zip"], "would replace model.zip"),
        (["evaluate", "model.zip", *OF_ENV, "--json", "link.zip"], "--json link.zip would replace model.zip"),
        (["evaluate", "model.zip", *OF_ENV, "--json", "hard.zip"], "--json hard.zip would replace model.zip"),
        (["evaluate", "model.zip", *OF_ENV, "--vec-normalize", "key.pem", "--json", "key.pem"], "would replace key.pem"),
        (["report", "model.zip", *OF_ENV, "-o", "model.zip"], "--output model.zip would replace model.zip"),
        (["report", "model.zip", *OF_ENV, "-o", "out/r.html", "--json", "model.zip"], "would replace model.zip"),
        (["report", "model.zip", *OF_ENV, "-o", "out/r.html", "--json", "out/./r.html"], "--output and --json both go to"),
        (["assign", "model.zip", "--episodes", "episodes.npz", "--weights", "users.csv", "--csv", "users.csv"], "users.csv"),
        (["assign", "model.zip", "--episodes", "episodes.npz", "--weights", "users.csv", "--json", "episodes.npz"], "replace"),
        (["assign", "model.zip", "--episodes", "episodes.npz", "--scores", "scores.csv", "--plot", "model.zip"], "replace"),
        (["assign", "model.zip", "--episodes", "new.npz", "--weights", "users.csv", "--plot", "new.npz"], "both go to"),
        (["budget", "--models", "model.zip", "--env", GRID, "--json", "model.zip"], "would replace model.zip"),
        (["budget", GRID, "--out", "out", "--no-plot", "--json", "out/k1_seed0.zip"], "both go to"),
        (["sweep", "grid.yml", "--out", "grid.yml"], "--out grid.yml would replace grid.yml"),
    ],
    ids=str,
)
def test_no_input_is_replaced(folder: Path, arguments: list[str], what: str) -> None:
    for name, make in (("link.zip", os.symlink), ("hard.zip", os.link)):
        if not (folder / name).exists():
            make(folder / "model.zip", folder / name)
    before = inputs(folder)
    assert_bad_input(invoke(*arguments), what)
    assert inputs(folder) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_a_full_disk_behind_stdout_is_one_line(folder: Path) -> None:
    command = [sys.executable, "-m", "sb3_rmdp.cli"]
    with open("/dev/full", "w") as full:
        done = subprocess.run([*command, "verify", "service"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "Error: [Errno 28] No space left on device\n")


def test_errors_that_nobody_expects_are_one_line_unless_a_traceback_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("no\nway")

    monkeypatch.setattr("sb3_rmdp.export.verify", fail)
    monkeypatch.setattr(cli, "load_with_env", fail)
    for command in (["verify", "service"], ["evaluate", "model.zip", "--env", GRID]):
        result = invoke(*command)
        assert result.exit_code == 2
        assert result.stderr == f"Error: ZeroDivisionError: no way ({commands.TRACEBACK}=1 in the environment shows where)\n"
        monkeypatch.setenv(commands.TRACEBACK, "1")
        assert isinstance(invoke(*command).exception, ZeroDivisionError)
        monkeypatch.delenv(commands.TRACEBACK)
