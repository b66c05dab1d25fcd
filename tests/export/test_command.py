"""The commands sb3-rmdp export and sb3-rmdp verify."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from stable_baselines3 import PPO

from sb3_rmdp import cli
from sb3_rmdp.export import graph, load_exported
from tests.export.models import CASES
from tests.test_cli import assert_bad_input


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, k = 3, n = 4, that has learned nothing."""
    path = tmp_path_factory.mktemp("models") / "model.zip"
    CASES["box"]().save(path)
    return path


def invoke(*arguments: object) -> Result:
    """
    :param arguments: of the command line
    :return: exit code and output
    """
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def test_export_and_verify(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    result = invoke("export", model, "-o", folder)
    assert result.exit_code == 0, result.output
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["model"]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert manifest["model"]["file"] == "model.zip"
    rows = [line.split() for line in result.stdout.splitlines()]
    for j, agents in enumerate((3, 0, 1)):
        (first,) = [row for row in rows if row[:3] == [str(j), str(agents), f"representative_{j}.zip"]]
        (second,) = [row for row in rows if row[:1] == [f"representative_{j}.onnx"]]
        assert float(first[-1]) <= 1e-5 and float(second[-1]) <= 1e-5
    assert manifest["sha256"] in result.stdout and "Normalisation folded in: policy" in result.stdout

    result = invoke("verify", folder, "--sha256", manifest["sha256"][:16])
    assert result.exit_code == 0 and "is what was written" in result.stdout, result.output
    assert_bad_input(invoke("verify", folder, "--sha256", "0" * 64), "has the hash", manifest["sha256"])
    file = folder / "representative_2.onnx"
    file.write_bytes(file.read_bytes() + b" ")
    assert_bad_input(invoke("verify", folder), "representative_2.onnx was changed")


def test_folders_beside_the_model_and_force(model: Path) -> None:
    for arguments, code in ((["--no-onnx"], 0), (["--no-onnx"], 2), (["--no-onnx", "--force"], 0)):
        result = invoke("export", model.with_suffix(""), *arguments)
        assert result.exit_code == code, result.output
        if code:
            assert_bad_input(result, "holds an export already", "--force")
    folder = model.with_name("model-export")
    assert load_exported(folder, "sb3").k == 3 and not list(folder.glob("*.onnx"))


def test_bad_input(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "export"
    options = ["-o", target, "--no-onnx"]
    (tmp_path / "torn.zip").write_bytes(model.read_bytes()[:-200])
    assert_bad_input(invoke("export", tmp_path / "torn.zip", *options), "not a complete zip file")
    assert_bad_input(invoke("export", tmp_path / "none.zip", *options), "there is no model file")
    assert_bad_input(invoke("export", tmp_path, *options), "is a folder")
    PPO("MlpPolicy", "CartPole-v1", device="cpu").save(tmp_path / "plain.zip")
    assert_bad_input(invoke("export", tmp_path / "plain.zip", *options), "no model of RepresentedPPO")
    assert_bad_input(invoke("export", model, *options, "--vec-normalize", model), "holds no statistics of VecNormalize")
    assert_bad_input(invoke("verify", tmp_path), "manifest.json is missing")
    assert_bad_input(invoke("verify", target), "there is no folder")

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(graph.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find_spec(name))
    message = ("onnxscript", 'pip install "sb3_rmdp[export]"', "--no-onnx")
    assert_bad_input(invoke("export", model, "-o", target), *message)
    assert not target.exists()
    assert invoke("export", model, *options).exit_code == 0
