"""Files beside a model, and files with statistics, run no code unless the user says that they are trusted."""

from __future__ import annotations

import base64
import json
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rmdp import RepresentedPPO, cli
from sb3_rmdp.common.vec_normalize_file import read_vec_normalize
from sb3_rmdp.zoo.run_folder import find_run_folder, read_run_folder
from tests.test_cli import assert_bad_input

pytest.importorskip("rl_zoo3")

GRID = "rmdp/ResourceGathering-v0"
KWARGS: dict[str, Any] = dict(shape=(3, 3), home=(2, 1))
OF_ENV = ["--env", GRID, "--env-kwargs", "shape:(3,3)", "--env-kwargs", "home:(2,1)"]
ORDERED = "!!python/object/apply:collections.OrderedDict\n"

#: Files that run code, or try to: by what is in their refusal
EVIL = {
    "python/object/apply:os.mkdir": "!!python/object/apply:os.mkdir ['ran']\n",
    "python/object/apply:os.system": ORDERED + "- - - k\n    - !!python/object/apply:os.system ['mkdir ran']\n",
    "python/object/new:": ORDERED + "- - - k\n    - !!python/object/new:os.mkdir ['ran']\n",
    "python/name:os.system": ORDERED + "- - - k\n    - !!python/name:os.system ''\n",
    "python/module:antigravity": ORDERED + "- - - k\n    - !!python/module:antigravity ''\n",
    "object/apply:subprocess.Popen": ORDERED + "- - - k\n    - &a !!python/object/apply:subprocess.Popen [[mkdir, ran]]\n",
}


class Evil:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (Path("ran"),)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a small grid."""
    path = tmp_path_factory.mktemp("models") / "model.zip"
    env = make_vec_env(GRID, 2, env_kwargs=KWARGS)
    RepresentedPPO("MlpPolicy", env, k=2, n_steps=16, batch_size=16, device="cpu", seed=0).save(path)
    return path


@pytest.fixture
def model(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it alone in a folder, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dl").mkdir()
    path = tmp_path / "dl" / "model.zip"
    path.write_bytes(saved.read_bytes())
    return path


@pytest.fixture(autouse=True)
def nothing_ran(tmp_path: Path) -> Any:
    """Nothing has made the folder."""
    yield
    assert not (tmp_path / "ran").exists()


def invoke(*arguments: object) -> Result:
    """
    :param arguments: of the command line
    :return: exit code and output
    """
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def run_folder(path: Path, config: str | None = None, args: str | None = None) -> Path:
    """
    :param path: where a model is
    :param config: in the place of a good config.yml
    :param args: in the place of a good args.yml
    :return: the folder of the settings
    """
    settings = path / "rmdp-ResourceGathering-v0"
    settings.mkdir()
    good = yaml.dump(OrderedDict(k=2, n_timesteps=64, env_kwargs=KWARGS))
    (settings / "config.yml").write_text(good if config is None else config)
    (settings / "args.yml").write_text(yaml.dump(OrderedDict(env=GRID, env_kwargs=None)) if args is None else args)
    return settings


def commands(model: Path, *more: str) -> list[list[object]]:
    """
    :param model: a file
    :param more: options of all commands
    :return: those that look beside it
    """
    quick = ["--episodes", "1", "--no-stress", "--no-frames", "--seeds", "1"]
    return [
        ["evaluate", model, "--episodes", "1", *more],
        ["report", model, "-o", model.with_name("report.html"), *quick, *more],
        ["assign", model, "--episodes", model.with_name("e.npz"), "--record", "2", "--weights", "w.csv", *more],
        ["budget", "--models", model, "--episodes", "1", "--no-plot", *more],
    ]


@pytest.mark.parametrize("text", [*EVIL.values(), "a: 1\n", "", "[", "k: !!python/tuple [1]\n", "\xff\0"])
def test_what_lies_beside_a_model_is_not_read_if_the_environment_is_named(model: Path, text: str) -> None:
    (model.parent / "notes").mkdir()
    (model.parent / "notes" / "config.yml").write_text(text)
    (model.parent / "notes" / "args.yml").write_text(text)
    Path("w.csv").write_text(",".join("1" * 9) + "\n")
    some = commands(model, *OF_ENV)
    for command in some if text == EVIL["python/object/apply:os.mkdir"] else some[:1]:
        done = invoke(*command)
        assert done.exit_code == 0, (command[0], done.output)


@pytest.mark.parametrize("tag", EVIL)
@pytest.mark.parametrize("where", ["config.yml", "args.yml"])
def test_settings_that_name_code_are_refused_with_file_and_tag(model: Path, tag: str, where: str) -> None:
    run_folder(model.parent, **{where[:-4]: EVIL[tag]})
    Path("w.csv").write_text(",".join("1" * 9) + "\n")
    for command in [*commands(model)[: 4 if "mkdir" in tag else 1], ["card", model.parent]]:
        assert_bad_input(invoke(*command), where, "tag", tag.partition("/")[2], "--trusted")


def test_somebodys_harmless_settings_break_nothing(model: Path) -> None:
    (model.parent / "notes").mkdir()
    (model.parent / "notes" / "config.yml").write_text("a: 1\n")
    assert find_run_folder(model) is None
    assert_bad_input(invoke("evaluate", model), "lies in no run folder", "add --env")
    run_folder(model.parent)
    done = invoke("evaluate", model, "--episodes", 1)
    assert done.exit_code == 0, done.output
    assert read_run_folder(model.parent).env_kwargs == KWARGS


def test_what_rl_zoo_writes_is_read_as_it_reads_it(model: Path) -> None:
    content = OrderedDict(
        env_kwargs=KWARGS, normalize=False, text="lin_3e-4", none=None, numbers=[1, 2.5], inner=OrderedDict(a=(1, (2,)))
    )
    settings = run_folder(model.parent, config=yaml.dump(content))
    run = read_run_folder(model.parent)
    known = yaml.load((settings / "config.yml").read_text(), Loader=yaml.UnsafeLoader)
    del known["env_kwargs"]
    assert run.hyperparams == known and run.env_kwargs == KWARGS


@pytest.mark.parametrize(
    "text",
    [
        ORDERED,
        ORDERED + "- 3\n",
        ORDERED + "- - - a\n",
        ORDERED + "- [\n",
        ORDERED + "\0",
        ORDERED + "- " + "[" * 1500,
        ORDERED + "- - - a\n    - &a [*a]\n",
        ORDERED + "- - - a\n    - &b {c: 1}\n  - - d\n    - {<<: *b}\n",
        ORDERED
        + "- - - a\n    - &b [1,1,1,1,1,1,1,1]\n"
        + "".join(f"  - - {i}\n    - &{chr(99 + i)} [{','.join([f'*{chr(98 + i)}'] * 8)}]\n" for i in range(20)),
        ORDERED + "- - - env_kwargs\n    - 3\n",
        ORDERED + "# " + "x" * 1_000_001,
    ],
    ids=range(11),
)
def test_damaged_settings_are_one_line_that_names_the_file(model: Path, text: str) -> None:
    settings = run_folder(model.parent, config=text)
    result = invoke("evaluate", model)
    assert_bad_input(result, str(settings))
    assert len(result.stderr) < 2000


def test_texts_in_settings_are_not_evaluated(model: Path) -> None:
    config = OrderedDict(normalize="__import__('os').mkdir('ran')", env_kwargs=KWARGS)
    run_folder(model.parent, config=yaml.dump(config))
    assert_bad_input(invoke("evaluate", model), "vecnormalize.pkl")


@pytest.mark.parametrize(
    ("config", "args", "named"),
    [
        ({}, {"gym_packages": ["evil"]}, "evil"),
        ({"env_wrapper": "evil.Wrapper"}, {}, "evil.Wrapper"),
        ({"env_wrapper": [{"evil.Wrapper": {"a": 1}}]}, {}, "evil.Wrapper"),
        ({"vec_env_wrapper": "evil.Wrapper"}, {}, "evil.Wrapper"),
        ({"env_wrapper": "os.system"}, {}, "os.system"),
        ({"env_wrapper": 3}, {}, "3"),
        ({"env_wrapper": "sb3_rmdp.zoo.run"}, {}, "sb3_rmdp.zoo.run"),
        ({}, {"env": f"evil:{GRID}"}, "evil"),
    ],
)
def test_modules_that_settings_name_are_not_imported(
    model: Path, config: dict[str, Any], args: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("evil.py").write_text("import os\nos.mkdir('ran')\n")
    monkeypatch.syspath_prepend(".")
    arguments = {"env": GRID, **args}
    run_folder(model.parent, yaml.dump(OrderedDict(env_kwargs=KWARGS, **config)), yaml.dump(OrderedDict(arguments)))
    for command in (["evaluate", model], ["card", model.parent]):
        assert_bad_input(invoke(*command), str(model.parent), named)


def test_code_runs_where_it_is_trusted(model: Path, tmp_path: Path) -> None:
    config = ORDERED + "- - - k\n    - !!python/object/apply:os.mkdir ['ran']\n"
    config += "  - - env_kwargs\n    - {shape: [3, 3], home: [2, 1]}\n"
    run_folder(model.parent, config=config)
    done = invoke("evaluate", model, "--trusted", "--episodes", 1)
    assert done.exit_code == 0, done.output
    (tmp_path / "ran").rmdir()


def test_statistics_run_no_code(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(Evil()))
    for command in (["evaluate", model, *OF_ENV], ["export", model, "--no-onnx"]):
        assert_bad_input(invoke(*command, "--vec-normalize", path), str(path), "Path.mkdir", "--trusted")
    with pytest.raises(ValueError, match=r"evil\.pkl holds no statistics of VecNormalize, but NoneType"):
        read_vec_normalize(path, trusted=True)
    (tmp_path / "ran").rmdir()


def test_statistics_of_every_protocol_and_space_are_read_without_trust(tmp_path: Path) -> None:
    env = VecNormalize(make_vec_env(GRID, 2, seed=0, env_kwargs=KWARGS))
    env.reset()
    env.action_space.sample()
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "v.pkl").write_bytes(pickle.dumps(env, protocol))
        found = read_vec_normalize(tmp_path / "v.pkl")
        assert (found.obs_rms.mean == env.obs_rms.mean).all()  # type: ignore[union-attr]
        assert found.observation_space == env.observation_space


def test_models_with_pickles_are_refused_with_the_option_that_opens_them(model: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(model) as archive:
        members: dict[str, Any] = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(members["data"])
    data["policy_kwargs"] = {":type:": "dict", ":serialized:": base64.b64encode(pickle.dumps(Evil())).decode()}
    with zipfile.ZipFile(model, "w") as archive:
        for name, content in {**members, "data": json.dumps(data)}.items():
            archive.writestr(name, content)
    Path("w.csv").write_text(",".join("1" * 9) + "\n")
    run_folder(model.parent)
    some = [*commands(model), ["export", model, "--no-onnx"]]
    for command in some:
        assert_bad_input(invoke(*command), str(model), "pass --trusted (trusted=True)")
    (model.parent / "best_model.zip").write_bytes(model.read_bytes())
    assert_bad_input(invoke("card", model.parent), "best_model.zip", "pass --trusted (trusted=True)")
    assert not (tmp_path / "ran").exists()
    assert_bad_input(invoke(*some[0], "--trusted"), str(model))  # what was run has given no arguments
    (tmp_path / "ran").rmdir()
