"""Wherever RL Zoo reports a mean reward of a represented model, it is social welfare: on a game where this is 7, exactly."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from tests.probes import Waiting, vectorized
from tests.vec_env.test_welfare import K, known_model

pytest.importorskip("rl_zoo3")

from sb3_rmdp.zoo import run
from sb3_rmdp.zoo.run_folder import read_run_folder
from tests.zoo.running import WAITING, enjoy, fork_workers, name_of, tensorboard, train

NAME = name_of(WAITING)
#: What keeps the model as it is
KEPT: dict[str, Any] = dict(learning_rate=0.0, k=K, assignment="fixed", n_steps=8, batch_size=8)
NORMALIZED = dict(normalize=dict(norm_obs=True, norm_reward=False))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in which representative j always takes action j."""
    path = tmp_path_factory.mktemp("known") / "known.zip"
    known_model().save(path)
    return path


def keep(folder: Path, known: Path, **options: Any) -> Path:
    """Two rollouts of 24 steps, an evaluation after each; the model learns nothing."""
    params = {**KEPT, **options.pop("params", {})}
    settings = {"n_timesteps": 48, "eval_freq": 24, "verbose": 0, **options}
    return train(folder, "-i", str(known), env=WAITING, params=params, **settings)


@pytest.fixture(scope="module")
def kept(known: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    keep(folder, known)
    return folder


def mean_reward(out: str) -> str:
    (found,) = re.findall(r"^Mean reward: (\S+) ", out, flags=re.MULTILINE)
    return found


@pytest.mark.parametrize("params", [{}, NORMALIZED], ids=["raw", "normalized"])
@pytest.mark.parametrize("vec_env", ["dummy", "subproc"])
@pytest.mark.parametrize("n_eval_envs", [1, K, K + 1])
def test_in_evaluations_of_a_training(
    n_eval_envs: int,
    vec_env: str,
    params: dict[str, Any],
    known: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fork_workers(monkeypatch)
    options: dict[str, Any] = dict(n_eval_envs=n_eval_envs, vec_env=vec_env, tensorboard_log=tmp_path / "tb")
    run_folder = keep(tmp_path, known, params=params, **options)
    with np.load(run_folder / "evaluations.npz") as written:
        assert written["results"].shape == (2, 2 * K)  # 5 episodes would be no multiple of k
        np.testing.assert_allclose(written["results"].mean(axis=1), Waiting.welfare, rtol=1e-6)
    assert tensorboard(tmp_path / "tb", "eval/mean_reward") == [Waiting.welfare] * 2
    assert tensorboard(tmp_path / "tb", "rollout/social_welfare") == pytest.approx([Waiting.welfare] * 2)

    env = read_run_folder(run_folder).make_env()
    for name in ("best_model.zip", f"{NAME}.zip"):
        model = RepresentedPPO.load(run_folder / name, env=env, device="cpu")
        assert evaluate_welfare(model, env, 1).social_welfare == pytest.approx(Waiting.welfare)
    capsys.readouterr()
    enjoy(tmp_path, env=WAITING)
    assert mean_reward(capsys.readouterr().out) == "7.00"


@pytest.mark.parametrize("options", [[], ["--load-best"], ["--stochastic"], ["--progress"], ["--verbose", "1"]])
@pytest.mark.parametrize("n_timesteps", [1, 2, 6, 7, 100])
def test_in_enjoy(n_timesteps: int, options: list[str], kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    enjoy(kept, *options, env=WAITING, n_timesteps=n_timesteps)
    out = capsys.readouterr().out
    # A cycle is an episode of one step, one of two and one of three
    cycles = -(-n_timesteps // 6)
    assert mean_reward(out) == "7.00" and f"{3 * cycles} Episodes\n" in out and "Mean episode length: 2.00 " in out
    assert f"Episodes of each of the 3 representatives: {cycles}. The mean reward is social welfare." in out


def test_enjoy_reports_nothing_of_several_environments(
    kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fork_workers(monkeypatch)
    capsys.readouterr()
    enjoy(kept, "--n-envs", "2", env=WAITING)
    out = capsys.readouterr().out
    assert "Loading" in out and "Mean reward" not in out and "welfare" not in out


def test_in_plots(kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    for _ in range(2):  # the figures of the first are none of the second's
        run("all_plots", ["-a", "rppo", "-e", WAITING, "-f", str(kept / "logs"), "-o", str(tmp_path / "out"), "--no-display"])
    assert f"|{NAME}|7 +/- 0" in capsys.readouterr().out.replace(" |", "|")
    with (tmp_path / "out.pkl").open("rb") as file:
        results = pickle.load(file)
    (found,) = results[NAME].values()
    np.testing.assert_allclose(found["mean"], [Waiting.welfare] * 2, rtol=1e-6)
    np.testing.assert_allclose(found["last_evals"], [Waiting.welfare], rtol=1e-6)
    assert found["timesteps"].tolist() == [24, 48]


def test_plot_from_file(known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plots = ["-a", "rppo", "-e", WAITING, "-f", str(tmp_path / "logs"), "-o", str(tmp_path / "out"), "--no-display"]
    keep(tmp_path, known)
    run("all_plots", plots)
    with pytest.raises(SystemExit) as end:
        run("plot_from_file", ["-i", str(tmp_path / "out.pkl")])
    assert end.value.code == 2 and "needs two or more" in capsys.readouterr().err
    keep(tmp_path, known)
    run("all_plots", plots)
    run("plot_from_file", ["-i", str(tmp_path / "out.pkl"), "-o", str(tmp_path / "figure.svg")])
    assert (tmp_path / "figure.svg").stat().st_size > 0


def test_plot_train(kept: Path) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    run("plot_train", ["-a", "rppo", "-e", WAITING, "-f", str(kept / "logs"), "-w", "2"])
    assert pyplot.get_fignums()


def test_other_means_are_others(kept: Path) -> None:
    """What would be reported if evaluations knew nothing of representatives: their mean, or that of the first."""
    model = RepresentedPPO.load(kept / "logs" / "rppo" / f"{NAME}_1" / f"{NAME}.zip", device="cpu")
    env = vectorized(Waiting, 1)
    assert evaluate_policy(model, env, 2 * K, warn=False)[0] == pytest.approx(23 / 6)
    assert evaluate_policy(model.representative(0), env, 2, warn=False)[0] == pytest.approx(16 / 6)
