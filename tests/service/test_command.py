"""sb3-rmdp assign: numbers are those of model.assign, and wrong input ends with one line before time is spent."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from sb3_rmdp import RepresentedPPO, cli
from sb3_rmdp.service import EvaluationEpisodes, Scores, record_episodes
from tests.service.worlds import SMALL

ENV_ID = "rmdp/ResourceGathering-v0"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned nothing."""
    path = tmp_path_factory.mktemp("models") / "model.zip"
    RepresentedPPO("MlpPolicy", ENV_ID, k=3, **SMALL).save(path)
    return path


@pytest.fixture(scope="module")
def recorded(model: Path) -> Path:
    """Its episodes."""
    loaded = RepresentedPPO.load(model, device="cpu")
    return record_episodes(loaded, ENV_ID, 10, deterministic=False).save(model.with_name("recorded.npz"))


@pytest.fixture()
def users(tmp_path: Path) -> Path:
    """Four new users, as a text file with names of columns."""
    weights = np.random.default_rng(0).random((4, 25))
    np.savetxt(tmp_path / "users.csv", weights, delimiter=",", header=",".join(f"tile{i}" for i in range(25)), comments="")
    np.save(tmp_path / "users.npy", weights)
    return tmp_path / "users.csv"


def invoke(*arguments: object) -> Result:
    """
    :param arguments: of the command line, after ``assign``
    :return: exit code and output
    """
    return CliRunner().invoke(cli.main, ["assign", *map(str, arguments)])


def assert_bad_input(result: Result, *texts: str) -> None:
    """
    :param result: of a command that should have complained
    :param texts: what its line has to say
    """
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert all(text in line for text in texts), line
    assert "Traceback" not in result.output and result.stdout == ""


def test_numbers_are_those_of_assign(model: Path, recorded: Path, users: Path) -> None:
    expected = RepresentedPPO.load(model, device="cpu").assign(np.load(users.with_suffix(".npy")), recorded, 0.9)
    for file in (users, users.with_suffix(".npy")):
        result = invoke(model, "--episodes", recorded, "--weights", file, "--confidence", 0.9, "--json", "-")
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        for name in ("representative", "confident", "group_sizes"):
            assert found[name] == getattr(expected, name).tolist()
        for name in ("expected_returns", "expected_return", "lower", "upper", "regret", "best_possible"):
            np.testing.assert_allclose(found[name], getattr(expected, name), rtol=1e-12)
        assert (found["confidence"], found["n_episodes"], found["env"]) == (0.9, 10, ENV_ID)
    result = invoke(model, "--episodes", recorded, "--weights", users, "--confidence", 0.9)
    rows = [line.split() for line in result.stdout.splitlines()]
    for user in range(4):
        (row,) = [row for row in rows if row[:1] == [str(user)]]
        assert row[1:4] == [
            str(expected.representative[user]),
            f"{expected.expected_return[user]:.2f}",
            f"{expected.lower[user]:.2f}",
        ]
    assert f"known at 90 % for {expected.confident.sum()} of 4 users" in result.stdout
    assert "best of all recorded episodes" in result.stdout


def test_episodes_are_recorded_once(model: Path, users: Path, tmp_path: Path) -> None:
    options = ["--episodes", tmp_path / "new" / "episodes", "--weights", users, "--stochastic"]
    first = invoke(model, *options, "--env", ENV_ID, "--record", 4, "--seed", 3, "--json", "-", "--device", "cpu")
    assert first.exit_code == 0, first.output
    path = tmp_path / "new" / "episodes.npz"
    episodes = EvaluationEpisodes.load(path)
    assert (episodes.n_episodes, episodes.origin.seed, episodes.origin.deterministic) == (4, 3, False)
    assert episodes.trajectories is not None and f"Wrote {path}" in first.stderr
    time = path.stat().st_mtime_ns
    again = invoke(model, *options, "--env", ENV_ID, "--json", "-")
    assert again.exit_code == 0 and path.stat().st_mtime_ns == time
    assert {**json.loads(again.stdout), "episodes": ""} == {**json.loads(first.stdout), "episodes": ""}
    for others, text in (
        (["--record", 5], "has 4 episodes of each"),
        (["--env", "CartPole-v1"], f"was recorded in {ENV_ID}"),
        (["--deterministic"], "stochastic actions"),
    ):
        assert_bad_input(invoke(model, "--episodes", path, "--weights", users, *others), text, "a new file")


def test_many_users(model: Path, recorded: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "many.npy", np.random.default_rng(0).random((3000, 25)).astype(np.float32))
    table, picture = tmp_path / "served.csv", tmp_path / "regret.png"
    options = ["--episodes", recorded, "--weights", tmp_path / "many.npy", "--best-possible", 2000]
    result = invoke(model, *options, "--csv", table, "--plot", picture)
    assert result.exit_code == 0, result.output
    expected = RepresentedPPO.load(model, device="cpu").assign(np.load(tmp_path / "many.npy"), recorded, best_possible=2000.0)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["representative"]) for row in rows] == expected.representative.tolist()
    assert [float(row["regret"]) for row in rows] == expected.regret.tolist()
    assert [row["confident"] == "1" for row in rows] == expected.confident.tolist()
    assert picture.read_bytes().startswith(b"\x89PNG")
    lines = [line.split() for line in result.stdout.splitlines()]
    for j, size in enumerate(expected.group_sizes):
        (row,) = [line for line in lines if line[:1] == [str(j)]]
        assert row[1] == str(size)
    assert "Regret is against the best possible return that was given" in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"many.npy", "served.csv", "regret.png"}


def test_reward_functions_and_scores(model: Path, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rewards.py").write_text(
        "def short(obs, action, next_obs):\n    return -1.0\n\n"
        "def long(obs, action, next_obs, info):\n    return obs[:, 0] * 0.0 + 1.0\n\n"
        "def nothing(obs, action, next_obs):\n    return float('nan')\n\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    lengths = EvaluationEpisodes.load(recorded).lengths
    options = [model, "--episodes", recorded, "--json", "-"]
    found = json.loads(invoke(*options, "--reward", "my_rewards:short").stdout)
    np.testing.assert_allclose(found["expected_returns"][0], -lengths.mean(axis=1))
    found = json.loads(invoke(*options, "--reward", "my_rewards:long", "--vectorized").stdout)
    np.testing.assert_allclose(found["expected_returns"][0], lengths.mean(axis=1))
    assert_bad_input(invoke(*options, "--reward", "my_rewards:nothing"), "episode 0 of representative 0 at step 0")
    for name, text in (
        ("my_rewards:tall", "has no function tall"),
        ("my_rewards:number", "has no function number"),
        ("my_rewards", "names no function"),
        ("no_such_module:short", "No module named"),
    ):
        assert_bad_input(invoke(*options, "--reward", name), text)

    loaded, chosen = RepresentedPPO.load(model, device="cpu"), [[0, 1], [2, 3], [1, 9]]
    (tmp_path / "scores.csv").write_text("representative,episode,score\n0,1,3.5\n2,3,4\n1,9,-1\n")
    found = json.loads(invoke(*options, "--scores", "scores.csv").stdout)
    expected = loaded.assign(Scores([3.5, 4.0, -1.0], chosen), recorded)
    assert expected.fit_error is not None
    np.testing.assert_allclose([found["lower"], found["fit_error"]], [expected.lower, expected.fit_error], rtol=1e-9)
    assert "predicted from the others" in invoke(model, "--episodes", recorded, "--scores", "scores.csv").stdout
    for content, text in (
        ("representative,episode\n0,1\n", "has no column score"),
        ("representative,episode,score\n0,one,3.5\n", "line 2"),
        ("representative,episode,score\n0,1\n", "line 2"),
        ("representative,episode,score\n0,10,3.5\n", "no episode 10 of representative 0"),
        ("representative,episode,score\n", "at least one"),
    ):
        (tmp_path / "scores.csv").write_text(content)
        assert_bad_input(invoke(*options, "--scores", "scores.csv"), text)


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ([], ["exactly one of --weights, --reward and --scores"]),
        (["--weights", "users.csv", "--reward", "a:b"], ["exactly one of"]),
        (["--weights", "users.csv", "--confidence", "95"], ["confidence=95.0"]),
        (["--weights", "users.csv", "--best-possible", "inf"], ["--best-possible inf"]),
        (["--weights", "users.csv", "--plot", "picture.txt"], ["picture.txt", ".png"]),
        (["--weights", "users.csv", "--json", "-", "--csv", "-"], ["both go to -"]),
        (["--weights", "wrong.npy"], ["shape (2, 7)", "(25,)"]),
        (["--weights", "words.csv"], ["words.csv is no table of weights"]),
        (["--weights", "objects.npy"], ["objects.npy is no table of weights"]),
        (["--weights", "nan.npy"], ["weight 3 of user 0 is nan"]),
        (["--weights", "missing.npy"], ["missing.npy"]),
    ],
)
def test_wrong_input(
    model: Path, recorded: Path, users: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], texts: list[str]
) -> None:
    folder = users.parent
    monkeypatch.chdir(folder)
    np.save("wrong.npy", np.zeros((2, 7)))
    np.save("nan.npy", np.where(np.arange(25) == 3, np.nan, 0.0))
    np.save("objects.npy", np.array([{}], dtype=object))
    Path("words.csv").write_text("a,b\nc,d\n")
    assert_bad_input(invoke(model, "--episodes", recorded, *options), *texts)
    # Nor is anything recorded
    if options:
        assert_bad_input(invoke(model, "--episodes", "new.npz", "--env", ENV_ID, *options), *texts)
        assert not Path("new.npz").exists()


def test_wrong_models_and_episodes(model: Path, recorded: Path, users: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.zip"
    cut.write_bytes(model.read_bytes()[:5000])
    broken = tmp_path / "broken.npz"
    broken.write_bytes(recorded.read_bytes()[:3000])
    other = tmp_path / "other.zip"
    RepresentedPPO("MlpPolicy", ENV_ID, k=3, **{**SMALL, "seed": 9}).save(other)
    new = tmp_path / "new.npz"
    for path, episodes, text in (
        (cut, recorded, "not a complete zip file"),
        (tmp_path / "missing.zip", recorded, "there is no model file"),
        (model, broken, "no complete file of evaluation episodes"),
        (other, recorded, "recorded with another model"),
        (model, new, f"there is no file {new}, and none can be recorded"),
        (model, tmp_path, "directory"),
    ):
        assert_bad_input(invoke(path, "--episodes", episodes, "--weights", users), text)
    scores = tmp_path / "scores.csv"
    scores.write_text("representative,episode,score\n0,0,1\n")
    result = invoke(model, "--episodes", new, "--env", ENV_ID, "--scores", scores)
    assert_bad_input(result, "record episodes first")
    result = invoke(model, "--episodes", new, "--env", "rmdp/HalfCheetahVelocity-v0", "--weights", users)
    assert_bad_input(result, "n_agents=100, the model was made for 25")
    assert not new.exists()


def test_pictures_need_matplotlib(
    model: Path, recorded: Path, users: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [model, "--episodes", recorded, "--weights", users]
    result = invoke(*options, "--plot", tmp_path / "few.svg")
    assert result.exit_code == 0 and "<svg" in (tmp_path / "few.svg").read_text()
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert_bad_input(invoke(*options, "--plot", tmp_path / "none.png"), 'pip install "sb3_rmdp[plots]"')


def test_help_and_run_folders() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for option in ("--weights", "--reward", "--scores", "--record", "--plot", "representative,episode,score"):
        assert option in result.stdout
    assert "\n  assign " in CliRunner().invoke(cli.main, ["--help"]).stdout


def test_pictures_show_every_user() -> None:
    from matplotlib.figure import Figure

    from sb3_rmdp.service.judging import judge
    from sb3_rmdp.service.report import plot_new_users

    returns: Any = np.random.default_rng(0).normal(size=(3, 6, 30))
    few, many = plot_new_users(judge(returns[:, :, :4], np.eye(4))), plot_new_users(judge(returns, np.eye(30)))
    assert isinstance(few, Figure) and len(few.axes[0].get_yticks()) == 4
    bars: Any = many.axes[0].patches
    assert sum(bar.get_height() for bar in bars) == 30
