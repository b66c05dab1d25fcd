"""The command sb3-rmdp: numbers are those of evaluate_welfare, wrong input ends with one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rmdp import RepresentedPPO, __version__, cli, evaluate_welfare
from sb3_rmdp.common.seeds import seed_evaluation
from sb3_rmdp.zoo import SCRIPTS

ENV_ID = "rmdp/ResourceGathering-v0"
SMALL: dict[str, Any] = dict(n_steps=16, batch_size=16, n_epochs=1, seed=3, device="cpu", normalize_observations=False)
GROUPS = [0] * 10 + [1] * 8 + [2] * 7


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned nothing, but whom it serves."""
    path = tmp_path_factory.mktemp("models") / "model.zip"
    fixed: dict[str, Any] = dict(assignment="fixed", assignment_kwargs=dict(representatives=GROUPS))
    RepresentedPPO("MlpPolicy", ENV_ID, k=3, **fixed, **SMALL).save(path)
    return path


def invoke(*arguments: object) -> Result:
    """
    :param arguments: of the command line
    :return: exit code and output
    """
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def evaluated(*arguments: object) -> dict[str, Any]:
    """
    :param arguments: of ``evaluate``
    :return: its JSON, which is all that stdout may hold
    """
    result = invoke("evaluate", *arguments, "--json", "-", "--device", "cpu")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def assert_bad_input(result: Result, *texts: str) -> None:
    """
    :param result: of a command that should have complained
    :param texts: what its line has to say
    """
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert all(text in line for text in texts), line
    assert "Traceback" not in result.output and result.stdout == ""


@pytest.mark.parametrize("n_envs", [None, 2])
def test_numbers_are_those_of_evaluate_welfare(model: Path, n_envs: int | None) -> None:
    env = make_vec_env(ENV_ID, n_envs or 3)
    loaded = RepresentedPPO.load(model, device="cpu")
    seed_evaluation(env, 5)
    expected = evaluate_welfare(loaded, env, n_eval_episodes=7, deterministic=False)
    assert expected.social_welfare > 0.0  # or else nothing is compared

    more = [] if n_envs is None else ["--n-envs", n_envs]
    found = evaluated(model, "--env", ENV_ID, "--stochastic", "--episodes", 7, "--seed", 5, *more)
    for name in ("utilities", "utilities_standard_error", "assignment", "greedy", "agent_utilities"):
        np.testing.assert_array_equal(found[name], getattr(expected, name))
    for name in ("social_welfare", "standard_error", "greedy_social_welfare", "optimum", "share_of_optimum"):
        assert found[name] == getattr(expected, name)
    assert found["assignment"] == GROUPS and found["n_eval_episodes"] == 7
    assert (found["env"], found["deterministic"], found["seed"]) == (ENV_ID, False, 5)


def test_tables_show_the_same_numbers(model: Path) -> None:
    options = [model.with_suffix(""), "--env", ENV_ID, "--stochastic", "--episodes", 5]
    found = evaluated(*options)
    result = invoke("evaluate", *options)
    assert result.exit_code == 0, result.output
    utilities, (even, odd) = np.array(found["utilities"]), np.array(found["half_utilities"])
    lines = [line.split() for line in result.stdout.splitlines()]
    for j, size in enumerate((10, 8, 7)):
        own, choose, measure = (table[np.array(GROUPS) == j, j] for table in (utilities, even, odd))
        (row,) = [line for line in lines if line[:2] == [str(j), str(size)]]
        assert row[2] == f"{own.mean():.2f}" and row[5] == f"{measure[choose.argmin()]:.2f}"
        assert row[-1] == f"{utilities[:, j].mean():.2f}"
    welfare = f"Social welfare {found['social_welfare']:.2f} +- {found['standard_error']:.2f}"
    assert f"{welfare}, {100 * found['share_of_optimum']:.1f} % of the optimum" in result.stdout


def test_the_likeliest_actions_are_the_default(model: Path) -> None:
    found = evaluated(model, "--env", ENV_ID)
    assert found["deterministic"] and found["n_eval_episodes"] == 10 and found["seed"] == 0
    assert not np.any(found["utilities_standard_error"])  # the task is deterministic


def test_json_files_and_a_single_episode(model: Path, tmp_path: Path) -> None:
    result = invoke("evaluate", model, "--env", ENV_ID, "--episodes", 1, "--json", tmp_path / "new" / "result")
    assert result.exit_code == 0 and "Social welfare" in result.stdout
    content = json.loads((tmp_path / "new" / "result.json").read_text())
    assert content["standard_error"] is None and content["model"] == str(model)
    assert str(tmp_path / "new" / "result.json") in result.stderr


def test_arguments_of_the_environment(model: Path) -> None:
    kwargs = ["--env-kwargs", "max_episode_steps:1", "--env-kwargs", "render_mode:ansi"]
    found = evaluated(model, "--env", ENV_ID, "--stochastic", "--episodes", 40, *kwargs)
    assert found["env_kwargs"] == {"max_episode_steps": 1, "render_mode": "ansi"}
    # In one step only home's agent is visited, by a bump that earns 99
    assert np.flatnonzero(np.any(np.array(found["utilities"]) > 0.0, axis=1)).tolist() == [22]


def test_values_of_arguments_are_literals_or_strings() -> None:
    texts = ("a:1", "b:[1.5, 2]", "c:None", "d:rgb_array", "e:x:y", "f:__import__('os').getpid()", "g:dict(a=1)", "h:")
    parsed = cli.parse_env_kwargs(None, None, texts)  # type: ignore[arg-type]
    values = dict(a=1, b=[1.5, 2], c=None, d="rgb_array", e="x:y", f="__import__('os').getpid()", g="dict(a=1)", h="")
    assert parsed == values
    with pytest.raises(click.BadParameter, match="no name:value"):
        cli.parse_env_kwargs(None, None, ("population_seed=7",))  # type: ignore[arg-type]


def test_statistics_of_vec_normalize(tmp_path: Path) -> None:
    env = VecNormalize(make_vec_env(ENV_ID, 2, seed=0), norm_reward=False)
    trained = RepresentedPPO("MlpPolicy", env, k=2, **SMALL).learn(64)
    trained.save(tmp_path / "model")
    env.save(str(tmp_path / "statistics.pkl"))
    options = [tmp_path / "model.zip", "--env", ENV_ID, "--stochastic"]
    assert_bad_input(invoke("evaluate", *options), "VecNormalize.load")
    assert_bad_input(invoke("evaluate", *options, "--vec-normalize", tmp_path / "model.zip"), "holds no statistics")

    found = evaluated(*options, "--vec-normalize", tmp_path / "statistics.pkl")
    fresh = VecNormalize.load(str(tmp_path / "statistics.pkl"), make_vec_env(ENV_ID, 2, seed=0))
    set_random_seed(0)
    expected = evaluate_welfare(trained, fresh, deterministic=False)
    np.testing.assert_array_equal(found["utilities"], expected.utilities)


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (["--env", "rmdp/ResourceGatherin-v0"], ["'rmdp/ResourceGatherin-v0' is not registered", f"did you mean {ENV_ID}"]),
        (["--env", "no_such_module:Own-v0"], ["no_such_module"]),
        (["--env", "CartPole-v1"], ["no attribute n_agents"]),
        (["--env", "rmdp/HalfCheetahVelocity-v0"], ["n_agents=100, the model was made for 25"]),
        (["--env", ENV_ID, "--env-kwargs", "home:(0, 0)"], ["the population", "home0,0", "was made for", "home4,2"]),
        (["--env", ENV_ID, "--env-kwargs", "home:(9, 9)"], ["home=(9, 9) is not on the grid"]),
        (["--env", ENV_ID, "--env-kwargs", "colour:1"], ["colour"]),
        (["--env", ENV_ID, "--env-kwargs", "seven"], ["'seven' is no name:value"]),
        (["--env", ENV_ID, "--episodes", "0"], ["0"]),
        (["--env", ENV_ID, "--device", "nowhere"], ["device='nowhere'"]),
        ([], ["add --env"]),
    ],
)
def test_wrong_options(model: Path, options: list[str], texts: list[str]) -> None:
    assert_bad_input(invoke("evaluate", model, *options), *texts)


def test_wrong_models(model: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.zip"
    cut.write_bytes(model.read_bytes()[:5000])
    PPO("MlpPolicy", "CartPole-v1", n_steps=16, batch_size=16, device="cpu").save(tmp_path / "ppo.zip")
    for path, text in {
        tmp_path / "missing.zip": "there is no model file",
        cut: "not a complete zip file",
        tmp_path / "ppo.zip": "no model of RepresentedPPO",
        tmp_path: "is a folder",
    }.items():
        assert_bad_input(invoke("evaluate", path, "--env", ENV_ID), text, str(path))


def test_card_needs_a_run_folder(tmp_path: Path) -> None:
    assert_bad_input(invoke("card", tmp_path), "no run folder")
    assert_bad_input(invoke("card", tmp_path / "missing"), "there is no folder")


def test_help_lists_every_command() -> None:
    result = invoke("--help")
    assert result.exit_code == 0 and "represented MDP" in result.stdout
    for name in [*SCRIPTS, *(name for names in cli.SECTIONS.values() for name in names)]:
        assert f"\n  {name} " in result.stdout
    assert invoke("--version").stdout.strip() == f"sb3-rmdp, version {__version__}"
    for name in ("evaluate", "card"):
        assert "--episodes" in invoke(name, "--help").stdout


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--algo", "rppo", "-n", "5", "--", "--env-kwargs", "a:1", "b:2"], []])
def test_scripts_of_the_zoo_get_their_words_as_they_are(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(cli, "run", lambda script, arguments: calls.append((script, arguments)))
    for script in SCRIPTS:
        assert invoke(script, *words).exit_code == 0
    assert calls == [(script, words) for script in SCRIPTS]


@pytest.mark.parametrize(
    ("code", "exit_code", "said"), [("error: no such env", 2, "Error: no such env\n"), (0, 0, ""), (3, 3, "")]
)
def test_how_scripts_of_the_zoo_end(code: Any, exit_code: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(script: str, arguments: list[str]) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(cli, "run", end)
    result = invoke("train")
    assert (result.exit_code, result.stderr) == (exit_code, said)


def test_as_a_process_of_its_own(model: Path) -> None:
    command = [sys.executable, "-m", "sb3_rmdp.cli", "evaluate", str(model), "--json", "-"]
    done = subprocess.run([*command, "--env", ENV_ID], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["assignment"] == GROUPS
    failed = subprocess.run([*command, "--env", "nothing"], capture_output=True, text=True, check=False)
    assert failed.returncode == 2 and failed.stdout == ""
    assert failed.stderr.startswith("Error: environment 'nothing' is not registered") and failed.stderr.count("\n") == 1


def test_help_waits_for_nothing_that_only_some_commands_need() -> None:
    code = "import sys, sb3_rmdp.cli; print({'rl_zoo3', 'matplotlib', 'yaml', 'huggingface_hub', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
