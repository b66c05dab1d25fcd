"""What is wrong with a command is told in one line that names it, before anything is left behind."""

from __future__ import annotations

import errno
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sb3_rmdp import RepresentedPPO

pytest.importorskip("rl_zoo3")
import yaml

from sb3_rmdp.zoo import run, scripts
from tests.zoo.running import GRID, SMALL, WAITING, enjoy, name_of, train

HOPPER = "rmdp/HopperVelocity-v0"


def complaint(folder: Path, capsys: pytest.CaptureFixture[str], *words: str, **options: Any) -> str:
    """
    A training that must not begin.

    :param folder: a temporary folder
    :param words: more of the command line
    :param options: see :func:`train`
    :return: the line on stderr
    """
    before = set(folder.glob("logs/rppo/*"))
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        train(folder, *words, **options)
    captured = capsys.readouterr()
    assert end.value.code == 2 and "Traceback" not in captured.out + captured.err
    assert set(folder.glob("logs/rppo/*")) == before
    last = captured.err.splitlines()[-1]
    assert "error: " in last
    return last


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the grid with k = 3."""
    path = tmp_path_factory.mktemp("models") / "model.zip"
    RepresentedPPO("MlpPolicy", GRID, k=3, device="cpu", normalize_observations=False, **SMALL).save(path)
    return path


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (dict(env="rmdp/ResourceGatherin-v0"), ["rmdp/ResourceGatherin-v0", f"you maybe meant {GRID}"]),
        (dict(algo="rpo"), ["--algo", "'rpo'", "'rppo'"]),
        (dict(params=dict(gama=0.9)), ["'gama' is no hyperparameter of RepresentedPPO", "did you mean 'gamma'?"]),
        (dict(params=dict(n_sbeps=8)), ["'n_sbeps'", "did you mean 'n_steps'?", "-params"]),
        (dict(params=dict(zzz=1)), ["'zzz'", "choose among", "'batch_size'"]),
        (dict(params=dict(seed=1)), ["'seed' is no hyperparameter"]),
        (dict(params=dict(k=26)), ["k=26", "n_agents=25"]),
        (dict(params=dict(k=0)), ["k=0", "at least 1"]),
        (dict(params=dict(k=2.0)), ["k=2.0", "integer"]),
        (dict(params=dict(k=None)), ["k, the number of representatives, is missing"]),
        (dict(params=dict(learning_rate="lin_3e-4_x")), ["learning_rate", "'lin_3e-4_x' is no schedule", "lin_3e-4_1e-4"]),
        (dict(params=dict(ent_coef="fast")), ["ent_coef", "'fast' is no schedule"]),
        (dict(params=dict(assignment="en")), ["'en'", "em"]),
        (dict(params=dict(policy="MlpPolic")), ["MlpPolic"]),
        (dict(params=dict(policy="tests.probes.Nobody")), ["Nobody"]),
        (dict(params=dict(normalize=True)), ["normalises rewards", "norm_reward: false"]),
        (dict(params=dict(normalize="dict(norm_obs=True)")), ["normalises rewards", "norm_reward: false"]),
        (dict(params=dict(callback="tests.zoo.callbacks.Recoder")), ["Recoder"]),
        (dict(params=dict(callback="tests.zoo.no_such_module.Recorder")), ["no_such_module"]),
        (dict(params=dict(callback={"tests.zoo.callbacks.Interrupt": {"when": 3}})), ["when"]),
        (dict(params=dict(env_wrapper="tests.probes.NoWrapper")), ["NoWrapper"]),
        (dict(params=dict(policy_kwargs="dict(net_arch=[8]")), ["never closed"]),
        (dict(params=dict(policy_kwargs=dict(width=8))), ["width"]),
        (dict(env_kwargs=dict(shape=(3, 3), home=(9, 9))), ["home=(9, 9)"]),
        (dict(env_kwargs=dict(colour="red")), ["colour"]),
        (dict(env="CartPole-v1"), ["no attribute n_agents"]),
        (dict(conf_file="no_such_file.yml"), ["no_such_file.yml"]),
        (dict(conf_file="no_such_module"), ["no_such_module"]),
        (dict(trained_agent="no_such_model.zip"), ["trained_agent"]),
        (dict(device="nowhere"), ["nowhere"]),
        (dict(device="meta"), ["device='meta' is none"]),
        (dict(params=dict(k=10**9)), ["k=1000000000", "n_agents=25"]),
        (dict(eval_freq=10, eval_episodes=0), ["--eval-episodes 0"]),
        (dict(env_kwargs=dict(shape=(10**7, 10**7))), ["MemoryError", "Unable to allocate"]),
        (dict(gym_packages="no_such_games"), ["no_such_games"]),
    ],
    ids=str,
)
def test_words_of_the_command_line(
    options: dict[str, Any], texts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = complaint(tmp_path, capsys, **options)
    assert all(text in line for text in texts), line


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-params", "k"], "invalid syntax"),
        (["-params", "assignment:em"], "name 'em' is not defined: strings need quotes of their own"),
        (["--env-kwargs", "a:(1"], "was never closed"),
    ],
)
def test_values_that_cannot_be_read(words: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run("train", ["--algo", "rppo", "--env", GRID, "-f", str(tmp_path / "logs"), *words])
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and line.startswith("error: ") and text in line
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("entry", "texts"),
    [
        (dict(policy="MlpPolicy", n_timesteps=100), ["'k' is missing", "own.yml", "-params k:5"]),
        (dict(policy="MlpPolicy", k=2), ["'n_timesteps' is missing", "own.yml"]),
        (dict(k=2, n_timesteps=100), ["'policy' is missing", "own.yml"]),
        (
            dict(policy="MlpPolicy", n_timesteps=100, k=2, clip_rang=0.1),
            ["'clip_rang'", "did you mean 'clip_range'?", "own.yml"],
        ),
        (None, ["own.yml"]),
    ],
)
def test_configurations(
    entry: dict[str, Any] | None, texts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.yml"
    path.write_text(yaml.dump({"other-v0" if entry is None else GRID: entry}))
    line = complaint(tmp_path, capsys, conf_file=path)
    assert all(text in line for text in texts), line


def test_a_full_disk_while_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.zip")

    monkeypatch.setattr(RepresentedPPO, "save", full)
    with pytest.raises(SystemExit) as end:
        train(tmp_path)
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: [Errno 28] No space left on device: 'model.zip'"


def test_settings_that_are_nested_without_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "deep.yml").write_text(f"{GRID}: {'[' * 3000}")
    assert "nested too deeply" in complaint(tmp_path, capsys, conf_file=tmp_path / "deep.yml")


@pytest.mark.parametrize("text", ["a: [1, 2\nb: 3", "", "- 1\n- 2\n", "rmdp/ResourceGathering-v0: 3\n"])
def test_files_that_are_no_configuration(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.yml").write_text(text)
    assert "own.yml" in complaint(tmp_path, capsys, conf_file=tmp_path / "own.yml")


def test_models_that_do_not_fit(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = complaint(tmp_path, capsys, trained_agent=model, params=dict(k=4))
    assert "k=4 cannot be changed on loading" in line and "saved with 3" in line
    line = complaint(tmp_path, capsys, trained_agent=model, params=dict(assignment="random"))
    assert "assignment='random' cannot be changed on loading" in line
    line = complaint(tmp_path, capsys, trained_agent=model, env=WAITING)
    assert "Observation spaces do not match" in line
    broken = tmp_path / "broken.zip"
    broken.write_bytes(model.read_bytes()[:3000])
    line = complaint(tmp_path, capsys, trained_agent=broken)
    assert "broken.zip" in line and "not a complete zip file" in line


def test_models_of_another_population(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder = train(tmp_path, env=HOPPER, params=dict(n_steps=8, batch_size=8, k=2), n_timesteps=1)
    again: dict[str, Any] = dict(env=HOPPER, trained_agent=run_folder / f"{name_of(HOPPER)}.zip", params=dict(k=2))
    assert "n_agents=50" in complaint(tmp_path, capsys, env_kwargs=dict(n_agents=50), **again)
    line = complaint(tmp_path, capsys, env_kwargs=dict(population_seed=7), **again)
    assert "population" in line and "population_seed" in line


@pytest.mark.parametrize("k", [26, 0])
def test_tuning_with_a_budget_that_does_not_fit(k: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = complaint(tmp_path, capsys, "-optimize", "--n-trials", "1", params=dict(k=k))
    assert f"k={k}" in line


def test_enjoy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, text in ((dict(), "logs/rppo"), (dict(algo="rpo"), "'rpo'"), (dict(exp_id=7), f"{tmp_path}/logs")):
        with pytest.raises(SystemExit) as end:
            enjoy(tmp_path, **options)
        assert end.value.code == 2 and text in capsys.readouterr().err.splitlines()[-1]
    train(tmp_path, env=WAITING, n_timesteps=1)
    for options, text in (
        (dict(load_best=True), "best_model.zip"),
        (dict(load_checkpoint=5), "rl_model_5_steps.zip"),
        (dict(load_last_checkpoint=True), "No checkpoint found"),
    ):
        with pytest.raises(SystemExit) as end:
            enjoy(tmp_path, env=WAITING, **options)
        assert end.value.code == 2 and text in capsys.readouterr().err.splitlines()[-1]


def test_unknown_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run("trian")
    assert end.value.code == "error: unknown script 'trian'" and "\n  train " in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        scripts.main([])
    assert end.value.code == 2 and "usage: " in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        scripts.main(["train", "--help"])
    assert end.value.code == 0 and "--n-timesteps" in capsys.readouterr().out


def test_without_rl_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as end:
        run("train")
    assert end.value.code == 'error: RL Zoo is not installed: pip install "sb3_rmdp[zoo]"'


def test_verbose_shows_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        train(tmp_path, params=dict(k=26), verbose=2)
    err = capsys.readouterr().err
    assert end.value.code == 2 and "Traceback" in err and err.splitlines()[-1].startswith("error: k=26")


def test_as_a_process_of_its_own(tmp_path: Path) -> None:
    words = ["train", "--algo", "rppo", "--env", GRID, "-f", str(tmp_path / "logs"), "-params", "k:26"]
    done = subprocess.run([sys.executable, "-m", "sb3_rmdp.zoo", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: k=26 representatives for n_agents=25: choose k from 1 to 25\n"
    assert not list(tmp_path.glob("logs/rppo/*"))
