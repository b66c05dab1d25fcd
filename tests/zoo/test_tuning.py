"""Tuning: values of trials are social welfare, studies go on, bad trials are pruned, samples fit the algorithm."""

from __future__ import annotations

import pickle
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FixedTrial, TrialState, create_trial

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from tests.probes import TwoGroups, Waiting, vectorized

pytest.importorskip("rl_zoo3")
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import get_saved_hyperparams

from sb3_rmdp.zoo import run
from sb3_rmdp.zoo.registration import register
from sb3_rmdp.zoo.tuning import convert_represented_params, sample_represented_params
from tests.zoo.running import WAITING, enjoy, name_of, train

pytestmark = pytest.mark.usefixtures("short_rollouts")


def storage(folder: Path) -> str:
    """A database in a folder that is not there before the first command."""
    return f"sqlite:///{folder}/studies/new/study.db"


def study(folder: Path) -> optuna.Study:
    return optuna.load_study(storage=storage(folder), study_name="waiting")


def tune(folder: Path, *words: str, **options: Any) -> None:
    """Two rollouts of 256 steps in three environments per trial, and one evaluation in the midst of the second."""
    settings = {"storage": storage(folder), "study_name": "waiting", "n_trials": 2, "n_timesteps": 1536, "eval_episodes": 3}
    settings |= {"n_evaluations": 1, "device": "cpu", "log_folder": folder / "logs", "hyperparams": dict(k=3)}
    run("train", ["--algo", "rppo", "-optimize", "--no-optim-plots", *words], env=WAITING, **{**settings, **options})


def test_values_of_trials_are_welfare(tmp_path: Path) -> None:
    tune(tmp_path, optimization_log_path=tmp_path / "trials", verbose=0)
    trials = study(tmp_path).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    for trial in trials:
        folder = tmp_path / "trials" / f"trial_{trial.number}"
        # There was one evaluation only, so that the best model is the one that it was of
        model = RepresentedPPO.load(folder / "best_model.zip", device="cpu")
        assert trial.value == pytest.approx(evaluate_welfare(model, vectorized(Waiting, 3), 1).social_welfare)
        assert trial.value is not None and trial.value > 0.0 and trial.intermediate_values == {1: trial.value}
        with np.load(folder / "evaluations.npz") as written:
            assert written["results"].shape == (1, 3) and written["results"].mean() == pytest.approx(trial.value)
        assert model.n_steps == 256 == trial.user_attrs["n_steps"]
        assert model.gamma == trial.params["gamma"]
        assert model.lr_schedule(1.0) == trial.params["learning_rate_start"]


def test_the_same_command_again_adds_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tune(tmp_path, n_trials=1, verbose=0)
    (first,) = study(tmp_path).trials
    tune(tmp_path, n_trials=1)
    trials = study(tmp_path).trials
    assert len(trials) == 2 and trials[0].params == first.params != trials[1].params
    best = max(trial.value for trial in trials if trial.value is not None)
    out = capsys.readouterr().out
    assert f"Value:  {best}\n" in out and "Number of finished trials:  2\n" in out
    reports = sorted((tmp_path / "logs" / "rppo").glob("report_*.pkl"))
    with reports[-1].open("rb") as file:
        assert pickle.load(file).best_value == best


@pytest.mark.parametrize(("pruner", "state"), [("median", TrialState.PRUNED), ("none", TrialState.COMPLETE)])
def test_a_trial_below_the_median_is_pruned(pruner: str, state: TrialState, tmp_path: Path) -> None:
    (tmp_path / "studies" / "new").mkdir(parents=True)
    before = optuna.create_study(storage=storage(tmp_path), study_name="waiting", direction="maximize")
    for _ in range(3):  # Nobody can be paid as much as that
        before.add_trial(create_trial(value=1e6, intermediate_values={1: 1e6, 2: 1e6}))
    tune(tmp_path, "--pruner", pruner, "--n-startup-trials", "0", n_trials=1, n_evaluations=2, verbose=0)
    trial = study(tmp_path).trials[-1]
    assert trial.number == 3 and trial.state == state
    # Not only said to be pruned: it was not evaluated again
    assert list(trial.intermediate_values) == ([1] if state == TrialState.PRUNED else [1, 2])


#: Samples of assignments, by name
OWN: dict[str, set[str]] = {
    "episodes": {"mixing", "warm_start", "patience", "exploration", "stagnation"},
    "em": {"mixing", "warm_start"},
    "end_to_end": {"assignment_learning_rate", "init_std"},
    "random": set(),
}


@pytest.mark.parametrize("assignment", [*OWN, None])
def test_parameters_of_the_configured_assignment(assignment: str | None, tmp_path: Path) -> None:
    params = dict(k=3) if assignment is None else dict(k=3, assignment=assignment)
    tune(tmp_path, n_trials=1, hyperparams=params, optimization_log_path=tmp_path / "trials", n_timesteps=768, verbose=0)
    (trial,) = study(tmp_path).trials
    names = set().union({"assignment"}, *OWN.values()) & trial.params.keys()
    model = RepresentedPPO.load(tmp_path / "trials" / "trial_0" / "best_model.zip", device="cpu")
    chosen = trial.params["assignment"] if assignment is None else assignment
    assert names == OWN[chosen] | ({"assignment"} if assignment is None else set())
    assert model.assignment_method == chosen


def test_every_sample_is_accepted() -> None:
    register()
    assert HYPERPARAMS_SAMPLER["rppo"] is sample_represented_params
    assert HYPERPARAMS_CONVERTER["rppo"] is convert_represented_params
    random = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assignments = set()
    for number in range(16):
        game, n_actions = ((Waiting, 0), (TwoGroups, 1))[number % 2]
        trial = random.ask()
        sampled = sample_represented_params(trial, n_actions, 3, {})
        params = trial.params
        assert ("log_std_init" in params) == (n_actions > 0)
        again = sample_represented_params(FixedTrial(params), n_actions, 3, {})  # type: ignore[arg-type]
        for hyperparams in (sampled, again, convert_represented_params(params)):
            model = RepresentedPPO("MlpPolicy", vectorized(game, 3), k=3, device="cpu", **hyperparams)
            assert model.n_steps == 2 ** params["n_steps_pow"]
            assert model.batch_size == min(2 ** params["batch_size_pow"], model.n_steps)
            assert model.gae_lambda == 1.0 - params["one_minus_gae_lambda"]
            ends = [(schedule(1.0), schedule(0.0)) for schedule in (model.lr_schedule, model.ent_coef)]  # type: ignore[operator]
            for (start, end), name in zip(ends, ("learning_rate", "ent_coef"), strict=True):
                assert start == params[f"{name}_start"] and end == pytest.approx(start * params[f"{name}_left"])
            if params["assignment"] != "end_to_end":
                assert all(getattr(model.assignment, name) == params[name] for name in OWN[params["assignment"]])
            else:
                assert model.assignment.optimizer is not None
                assert model.assignment.optimizer.param_groups[0]["lr"] == params["assignment_learning_rate"]
            if n_actions > 0:
                assert model.policy.log_std_init == params["log_std_init"]
        assignments.add(params["assignment"])
    assert assignments == {"episodes", "em", "end_to_end"}


@pytest.mark.parametrize("number", [0, 1])
def test_hyperparameters_of_a_trial_are_those_of_a_training(number: int, tmp_path: Path) -> None:
    tune(tmp_path, n_trials=number + 1, n_timesteps=768, verbose=0)
    trial = study(tmp_path).trials[number]
    options: dict[str, Any] = dict(storage=storage(tmp_path), study_name="waiting", trial_id=number, n_timesteps=768)
    run_folder = train(tmp_path, env=WAITING, params=dict(n_steps=16, batch_size=16), **options)
    model = RepresentedPPO.load(run_folder / f"{name_of(WAITING)}.zip", device="cpu")
    assert (model.gamma, model.max_grad_norm) == (trial.params["gamma"], trial.params["max_grad_norm"])
    assert model.assignment_method == trial.params["assignment"] and model.n_steps == 16
    assert model.lr_schedule(1.0) == trial.params["learning_rate_start"]
    hyperparams, _ = get_saved_hyperparams(str(run_folder / name_of(WAITING)))
    assert hyperparams["gamma"] == model.gamma and hyperparams["learning_rate"](1.0) == model.lr_schedule(1.0)
    enjoy(tmp_path, env=WAITING)


def test_studies_of_which_nothing_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        tune(tmp_path, n_trials=0)
    last = capsys.readouterr().err.splitlines()[-1]
    assert end.value.code == 2 and last == "error: no trial came to its end: all were pruned, failed or interrupted"
    assert study(tmp_path).trials == []


def test_trials_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "studies" / "new").mkdir(parents=True)
    optuna.create_study(storage=storage(tmp_path), study_name="waiting").add_trial(create_trial(value=1.0))
    for name, number in (("waiting", 7), ("walking", 0)):
        with pytest.raises(SystemExit) as end:
            train(tmp_path, env=WAITING, storage=storage(tmp_path), study_name=name, trial_id=number)
        said = f"error: there is no trial {number} of a study '{name}' in {storage(tmp_path)}\n"
        assert end.value.code == 2 and capsys.readouterr().err.endswith(said)
    assert not (tmp_path / "logs").exists()


def test_a_locked_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tune(tmp_path, n_trials=1, n_timesteps=768, verbose=0)
    capsys.readouterr()
    other = sqlite3.connect(storage(tmp_path).removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(SystemExit) as end:
            tune(tmp_path, n_trials=1)
    finally:
        other.execute("ROLLBACK")
        other.close()
    last = capsys.readouterr().err.splitlines()[-1]
    assert end.value.code == 2 and last.startswith(f"error: the study database {storage(tmp_path)} cannot be written")
    assert "database is locked" in last
    assert len(study(tmp_path).trials) == 1


def test_a_journal_needs_no_database(tmp_path: Path) -> None:
    path = tmp_path / "studies" / "new" / "study.log"
    tune(tmp_path, storage=path, n_trials=1, n_timesteps=768, verbose=0)
    journal = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    assert len(optuna.load_study(storage=journal, study_name="waiting").trials) == 1
