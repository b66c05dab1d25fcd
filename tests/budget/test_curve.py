"""Curves: what is trained, what is not trained again, errors by hand, files, pictures."""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.budget import BudgetCurve, BudgetRow, budget_curve, budget_of_models
from sb3_rmdp.budget.curve import gain_of_next
from sb3_rmdp.budget.describing import described
from sb3_rmdp.budget.task import Task, check_numbers_of_policies, tuned
from tests.probes import KnownAssignment

SMALL: dict[str, Any] = dict(n_steps=16, batch_size=16, n_epochs=1, device="cpu")


class Bounded(KnownAssignment):
    """The probe, with its optimum for every k, and less for everybody on request."""

    def __init__(self, less: float = 0.0):
        self.less = less
        self.population_id = f"bounded{less}"

    def rewards(self, action: int) -> Any:
        return self.table[:, action] - np.float32(self.less)

    def welfare_bound(self, k: int) -> float:
        return float((5 / 6, 10 / 6, 14 / 6)[min(k, 3) - 1]) - self.less


def curve_of(**kwargs: Any) -> BudgetCurve:
    settings = dict(env=Bounded, k=(1, 2, 4), transitions_per_policy=20, model_kwargs=SMALL)
    return budget_curve(**{**settings, **kwargs})


def row(k: int, seed: int, welfare: float, error: float = 0.5, **facts: Any) -> BudgetRow:
    return BudgetRow(k, seed, welfare, error, welfare - 1.0, 0.25, welfare + 0.5, **facts)


def made(*rows: BudgetRow) -> BudgetCurve:
    return BudgetCurve("Probe-v0", 6, rows, 10)


class Trained(BaseCallback):
    """Takes note of what is trained, and may interrupt it."""

    def __init__(self, interrupted: tuple[int, int] | None = None):
        super().__init__()
        self.interrupted, self.seen = interrupted, []  # type: ignore[var-annotated]

    def _on_training_start(self) -> None:
        assert isinstance(self.model, RepresentedPPO)
        self.seen.append((self.model.k, self.model.seed))

    def _on_step(self) -> bool:
        if self.seen[-1] == self.interrupted and self.n_calls > 5:
            raise KeyboardInterrupt
        return True


def test_rows_are_evaluations_of_the_models(tmp_path: Path) -> None:
    curve = curve_of(folder=tmp_path, seeds=2)
    assert [(row.k, row.seed) for row in curve.rows] == [(1, 0), (2, 0), (4, 0), (1, 1), (2, 1), (4, 1)]
    for found in curve.rows:
        assert found.model == str(tmp_path / f"k{found.k}_seed{found.seed}.zip")
        model = RepresentedPPO.load(found.model, device="cpu")
        assert (model.k, model.seed) == (found.k, found.seed)
        result = evaluate_welfare(model, DummyVecEnv([Bounded]), 2)  # modes of policies in a task without chance
        assert found.welfare == pytest.approx(result.social_welfare)
        assert found.greedy_welfare == pytest.approx(result.greedy_social_welfare)
        assert (found.worst_utility, found.worst_error, found.standard_error) == (result.worst_utility, 0.0, 0.0)
        assert found.optimum == pytest.approx((5 / 6, 10 / 6, None, 14 / 6)[found.k - 1])
    assert (curve.n_agents, curve.n_eval_episodes, curve.deterministic) == (6, 10, True)


def test_transitions_of_a_model_and_of_those_it_goes_back_to() -> None:
    # 20 per policy are two rollouts of 16
    warm, cold = curve_of(), curve_of(warm=False)
    assert [row.transitions_per_policy for row in (*warm.rows, *cold.rows)] == [32.0] * 6
    assert [row.transitions_in_total for row in warm.rows] == [32, 32 + 64, 32 + 64 + 128]
    assert [row.started_from for row in warm.rows] == [(), (1,), (1, 2)]
    assert [row.transitions_in_total for row in cold.rows] == [32, 64, 128]
    assert all(not row.started_from for row in cold.rows)


def test_warm_models_start_from_the_one_before_and_cold_ones_do_not() -> None:
    class Heads(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.first: list[np.ndarray] = []
            self.last: list[np.ndarray] = []

        def _head(self) -> np.ndarray:
            return self.model.policy.state_dict()["action_net.weight"][0].numpy().copy()

        def _on_training_start(self) -> None:
            self.first.append(self._head())

        def _on_training_end(self) -> None:
            self.last.append(self._head())

        def _on_step(self) -> bool:
            return True

    for warm in (True, False):
        heads = Heads()
        curve_of(warm=warm, callback=heads)
        for before, after in zip(heads.last, heads.first[1:], strict=False):
            assert np.array_equal(before, after) == warm


def test_an_interrupted_curve_goes_on_and_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    whole = curve_of(folder=tmp_path / "whole", seeds=2)
    folder = tmp_path / "folder"
    interrupted = Trained(interrupted=(4, 0))
    with pytest.raises(KeyboardInterrupt):
        curve_of(folder=folder, seeds=2, callback=interrupted)
    assert interrupted.seen == [(1, 0), (2, 0), (4, 0)]
    assert sorted(path.name for path in folder.glob("*.zip")) == ["k1_seed0.zip", "k2_seed0.zip"]
    rest = Trained()
    resumed = curve_of(folder=folder, seeds=2, callback=rest)
    assert rest.seen == [(4, 0), (1, 1), (2, 1), (4, 1)]
    for name in ("welfare", "worst_utility", "greedy_welfare", "transitions_in_total", "started_from"):
        assert [getattr(row, name) for row in resumed.rows] == [getattr(row, name) for row in whole.rows]
    for ours, theirs in zip(resumed.rows, whole.rows, strict=True):
        states = [RepresentedPPO.load(str(row.model), device="cpu").policy.state_dict() for row in (ours, theirs)]
        assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
    # More seeds and a larger k are added to what is there
    more = Trained()
    curve_of(folder=folder, seeds=3, k=(1, 2, 4, 6), callback=more)
    assert more.seen == [(6, 0), (6, 1), (1, 2), (2, 2), (4, 2), (6, 2)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(transitions_per_policy=40), r"transitions_per_policy=20, and 40 is asked for: choose another folder"),
        (dict(k=(1, 3, 4)), r"k4_seed0.zip was made with started_from=\[1, 2\], and \[1, 3\] is asked for"),
        (dict(warm=False), r"k2_seed0.zip was made with started_from"),
        (dict(model_kwargs={**SMALL, "gamma": 0.5}), "model_kwargs"),
        (dict(env_kwargs=dict(less=1.0)), "env_kwargs"),
    ],
)
def test_a_folder_with_other_settings_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    curve_of(folder=tmp_path)
    untrained = Trained()
    with pytest.raises(ValueError, match=message):
        curve_of(**{"folder": tmp_path, "callback": untrained, "seeds": [5, 0], **change})
    assert not untrained.seen


def test_a_folder_with_files_of_others_is_refused(tmp_path: Path) -> None:
    curve_of(folder=tmp_path)
    model, record = tmp_path / "k2_seed0.zip", tmp_path / "k2_seed0.json"
    text, content = record.read_text(), model.read_bytes()
    record.unlink()
    with pytest.raises(ValueError, match=r"k2_seed0.zip has no record k2_seed0.json"):
        curve_of(folder=tmp_path)
    record.write_text("[]")
    with pytest.raises(ValueError, match="is no record of a model"):
        curve_of(folder=tmp_path)
    record.write_text(text)
    model.write_bytes(content[:2000])
    with pytest.raises(ValueError, match="not a complete zip file"):
        curve_of(folder=tmp_path)
    model.write_bytes((tmp_path / "k4_seed0.zip").read_bytes())
    with pytest.raises(ValueError, match="has k=4"):
        curve_of(folder=tmp_path)
    model.write_bytes(content)
    assert len(curve_of(folder=tmp_path).rows) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(k=()), "k is empty"),
        (dict(k=(2, 1)), "does not rise"),
        (dict(k=(1, 1)), "does not rise"),
        (dict(k=(0, 1)), "at least 1"),
        (dict(k=(1, 2.5)), "integer"),
        (dict(k=(1, 7)), "k=7 representatives for n_agents=6"),
        (dict(seeds=0), "seeds"),
        (dict(seeds=[1, 1]), "each is there once"),
        (dict(seeds=[]), "number of seeds"),
        (dict(transitions_per_policy=0), "transitions_per_policy"),
        (dict(n_eval_episodes=0), "n_eval_episodes"),
        (dict(model_kwargs=dict(gama=0.9)), "'gama', which RepresentedPPO does not know"),
        (dict(model_kwargs=dict(k=3)), "'k', which a budget curve sets itself"),
        (dict(model_kwargs=dict(learning_rate="fast")), "no schedule"),
        (dict(model_kwargs=dict(n_steps=0)), "n_steps"),
        (dict(model_kwargs=dict(critic_rank=9)), "critic_rank"),
        (dict(model_kwargs=dict(assignment="fixed", assignment_kwargs=dict(representatives=[0] * 6))), "'fixed' cannot grow"),
        (dict(env="rmdp/ResourceGatherin-v0"), "did you mean"),
        (dict(env=Bounded()), "cannot be made again"),
        (dict(env="CartPole-v1"), "no attribute n_agents"),
    ],
)
def test_bad_input_is_told_before_anything_is_trained(change: dict, message: str, tmp_path: Path) -> None:
    untrained = Trained()
    with pytest.raises(ValueError, match=message):
        curve_of(**{"folder": tmp_path / "new", "callback": untrained, **change})
    assert not untrained.seen and not (tmp_path / "new").exists()


def test_any_kind_of_environment() -> None:
    env = gym.make("rmdp/ResourceGathering-v0")
    of_env, of_id = (budget_curve(source, 5, 16, model_kwargs=SMALL) for source in (env, "rmdp/ResourceGathering-v0"))
    assert of_env.rows == of_id.rows and of_env.env == of_id.env == "rmdp/ResourceGathering-v0"
    assert of_id.points[0].optimum == pytest.approx(91.04) and of_id.points[0].next_gain is None
    assert curve_of(k=1).env == "tests.budget.test_curve:Bounded"


def test_tuned_hyperparameters() -> None:
    entry = tuned("rmdp/ResourceGathering-v0")
    assert entry.transitions_per_policy == 150_000
    assert entry.arguments["learning_rate"] == "lin_5e-4_1e-4" and not {"k", "n_timesteps"} & set(entry.arguments)
    assert tuned(None).arguments == tuned("Unknown-v0").arguments != entry.arguments
    curve = budget_curve("rmdp/ResourceGathering-v0", 1, 16, model_kwargs={**SMALL, "gamma": 0.5})
    kept = {**entry.arguments, "gamma": 0.5, **{name: SMALL[name] for name in ("n_steps", "batch_size", "n_epochs")}}
    assert curve.settings["model_kwargs"] == kept


def test_the_time_limit_of_trainings(tmp_path: Path) -> None:
    class Lengths(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[int] = []

        def _on_step(self) -> bool:
            self.seen += [info["episode"]["l"] for info in self.locals["infos"] if "episode" in info]
            return True

    lengths = Lengths()
    kwargs: dict[str, Any] = dict(env_kwargs=dict(n_agents=20), callback=lengths, deterministic=False, n_eval_episodes=1)
    limited = {**SMALL, "max_episode_steps": 4}
    curve = budget_curve("rmdp/HalfCheetahVelocity-v0", 1, 16, model_kwargs=limited, folder=tmp_path, **kwargs)
    assert lengths.seen == [4] * 4
    assert curve.settings["model_kwargs"]["max_episode_steps"] == 4 and "max_episode_steps" not in curve.settings["env_kwargs"]
    model = RepresentedPPO.load(str(curve.rows[0].model), device="cpu")
    # Evaluations are as long as ever
    task = Task("rmdp/HalfCheetahVelocity-v0", dict(n_agents=20))
    assert curve.rows[0].welfare == task.evaluate(model, 1, False).social_welfare > 0.0
    with pytest.raises(ValueError, match="max_episode_steps=-1: choose"):
        budget_curve("rmdp/HalfCheetahVelocity-v0", 1, 16, model_kwargs={**SMALL, "max_episode_steps": -1}, **kwargs)


def test_gains_are_paired_over_seeds() -> None:
    # Differences of models of the same seed, per policy: 1.5, 1.0 and 2.0; seeds differ by far more
    one = [row(2, 0, 10.0), row(2, 1, 20.0), row(2, 2, 30.0)]
    two = [row(4, 2, 34.0), row(4, 0, 13.0), row(4, 1, 22.0)]
    gain, error, over = gain_of_next(one, two)
    assert (gain, over) == (1.5, "seeds")
    assert error == pytest.approx(0.5 / math.sqrt(3))
    points = made(*one, *two).points
    assert [point.welfare for point in points] == [20.0, 23.0]
    assert points[0].welfare_error == pytest.approx(10 / math.sqrt(3)) and points[0].worst_utility == 19.0
    assert (points[0].next_gain, points[0].next_gain_error) == (gain, error) and points[1].next_gain is None


def test_gains_of_single_models_and_of_different_seeds() -> None:
    gain, error, over = gain_of_next([row(1, 0, 10.0, 0.3)], [row(3, 0, 16.0, 0.4)])
    assert (gain, over) == (3.0, "episodes") and error == pytest.approx(0.25)
    gain, error, over = gain_of_next([row(1, 0, 10.0), row(1, 1, 14.0)], [row(2, 0, 20.0, 1.5)])
    assert (gain, over) == (8.0, "both, not paired") and error == pytest.approx(math.hypot(2.0, 1.5))
    assert made(row(1, 0, 10.0)).points[0].worst_error == 0.25


def test_smallest_number_of_policies() -> None:
    curve = made(row(1, 0, 50.0), row(2, 0, 94.0), row(3, 0, 97.0), row(5, 0, 100.0, optimum=110.0))
    assert [curve.smallest_k(share) for share in (0.5, 0.51, 0.94, 0.95, 1.0)] == [1, 2, 2, 3, 5]
    assert made(row(1, 0, -2.0), row(2, 0, -1.0)).smallest_k() is None
    text = " ".join(curve.summary())
    assert "k = 3 is the smallest" in text and "worth 1.50 +- 0.35." in text and "90.9 % with k = 5" in text
    doubtful = made(row(1, 0, 10.0), row(2, 0, 10.5))
    assert "less than 2.3 standard errors above 0: it may be chance" in " ".join(doubtful.summary())
    unknown = made(row(1, 0, 10.0, math.nan), row(2, 0, 10.5, math.nan))
    assert "worth 0.50, whose error is not known." in " ".join(unknown.summary())
    assert made(row(1, 0, 10.0)).summary() == []


def test_the_last_gain_is_called_clear_by_chance_as_rarely_as_is_said() -> None:
    # Three models of each k, all of which are worth the same but for chance: 2.5 % of gains are called clear
    rng, n = np.random.default_rng(0), 2000
    clear = 0
    for welfare in rng.normal(50.0, 1.0, size=(n, 2, 3)):
        curve = made(*(row(k, seed, welfare[k - 1, seed]) for k in (1, 2) for seed in range(3)))
        clear += "chance" not in " ".join(curve.summary())
    assert clear / n == pytest.approx(0.025, abs=4 * (0.025 * 0.975 / n) ** 0.5)


def test_json_there_and_back(tmp_path: Path) -> None:
    curve = curve_of(n_eval_episodes=1, seeds=[3], deterministic=False)
    assert math.isnan(curve.rows[0].standard_error)
    path = curve.save(tmp_path / "new" / "curve")
    assert path == tmp_path / "new" / "curve.json"
    loaded = BudgetCurve.load(path)
    assert math.isnan(loaded.rows[0].standard_error) and math.isnan(loaded.rows[0].worst_error)
    assert str(loaded) == str(curve) and loaded.settings["seeds"] == [3]
    content = json.loads(path.read_text())
    assert content["points"][0]["welfare"] == content["rows"][0]["welfare"] == curve.rows[0].welfare
    assert content["points"][2]["transitions_in_total"] == 224 and content["deterministic"] is False
    for wrong in ("{}", "[]", "nothing", json.dumps({**content, "version": 9}), json.dumps({**content, "rows": [{}]})):
        (tmp_path / "wrong.json").write_text(wrong)
        with pytest.raises(ValueError, match="holds no budget curve"):
            BudgetCurve.load(tmp_path / "wrong.json")


def printed(curve: BudgetCurve) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(curve.table())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_table() -> None:
    facts: dict[str, Any] = dict(
        optimum=89.28, transitions_per_policy=20_480.0, transitions_in_total=1_228_800, started_from=(1,)
    )
    text = printed(made(row(1, 0, 50.0), row(1, 1, 52.0), row(3, 0, 86.0, **facts), row(3, 1, 86.0, **facts)))
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert rows["1"] == "1 51.00 +- 1.00 - 50.00 +- 1.00 17.50 +- 0.50 - -".split()
    assert rows["3"] == "3 86.00 +- 0.00 89.28 85.00 +- 0.00 - 20.5k 1.23M".split()
    assert "over 2 models per k; of the next policy: over seeds" in " ".join(text.split())


def test_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    curve = made(*(row(k, seed, 10.0 * k + seed, optimum=12.0 * k) for k in (1, 2, 5) for seed in (0, 1)))
    figure = curve.plot(tmp_path / "new" / "curve.png")
    assert (tmp_path / "new" / "curve.png").read_bytes().startswith(b"\x89PNG")
    welfare, worst, gain = figure.axes
    optimum = next(line for line in welfare.lines if "optimum" in str(line.get_label()))
    assert list(optimum.get_ydata()) == [12.0, 24.0, 60.0]  # type: ignore[arg-type]
    drawn = [list(line.get_ydata()) for line in (*welfare.lines, *worst.lines)]  # type: ignore[arg-type]
    assert [10.5, 20.5, 50.5] in drawn and [9.5, 19.5, 49.5] in drawn
    assert [patch.get_height() for patch in gain.patches] == [10.0, 10.0]  # type: ignore[attr-defined]
    assert [label.get_text() for label in gain.get_xticklabels()] == ["1 to 2", "2 to 5"]
    assert list(welfare.get_xticks()) == [1, 2, 5]
    # One k, one episode: no gain, no errors
    made(row(3, 0, 1.0, math.nan)).plot(tmp_path / "single")
    assert (tmp_path / "single.png").exists()


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "sb3_rmdp\[plots\]"'):
        made(row(1, 0, 10.0)).plot()


def test_models_that_are_there(tmp_path: Path) -> None:
    curve = curve_of(folder=tmp_path, seeds=2)
    paths = sorted(tmp_path.glob("*.zip"), reverse=True)
    found = budget_of_models(paths, Bounded, device="cpu")
    key = {(row.k, row.seed): row for row in curve.rows}
    assert found.rows == tuple(key[order] for order in sorted(key)) and found.points == curve.points
    # In memory, of one seed: numbered
    models = [RepresentedPPO.load(tmp_path / f"k{k}_seed0.zip", device="cpu") for k in (2, 1, 2)]
    again = budget_of_models(models, Bounded)
    assert [(row.k, row.seed, row.model) for row in again.rows] == [(1, 0, None), (2, 0, None), (2, 1, None)]

    with pytest.raises(ValueError, match="models is empty"):
        budget_of_models([], Bounded)
    with pytest.raises(ValueError, match="is there twice"):
        budget_of_models([paths[0], paths[0]], Bounded)
    with pytest.raises(ValueError, match="pass env"):
        budget_of_models(models)
    with pytest.raises(FileNotFoundError, match="no model file"):
        budget_of_models([tmp_path / "nothing.zip"], Bounded)
    other = RepresentedPPO("MlpPolicy", DummyVecEnv([lambda: Bounded(1.0)]), k=3, **SMALL)
    with pytest.raises(ValueError, match=r"model 1 was made for other agents than model 0, .*bounded1.0"):
        budget_of_models([models[0], other], Bounded)
    with pytest.raises(ValueError, match=r"the population 'bounded1.0', the model was made for 'bounded0.0'"):
        budget_of_models(models, Bounded, env_kwargs=dict(less=1.0))


def test_small_things() -> None:
    assert check_numbers_of_policies(3) == (3,) and check_numbers_of_policies(np.array([1, 2])) == (1, 2)
    assert described(dict(a=[Bounded, np.float32(0.5)], b=np.arange(2), c=None)) == {
        "a": ["tests.budget.test_curve:Bounded", 0.5],
        "b": [0, 1],
        "c": None,
    }
