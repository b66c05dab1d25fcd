"""Benchmarks run and reckon rightly; how fast anything is, is not tested."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import ablations, devices, fairness, overlap, paths
from benchmarks.performance.__main__ import main
from benchmarks.performance.floor import Product, products, products_of
from benchmarks.performance.measure import represented
from benchmarks.performance.profile import PARTS, Stopwatch, shares
from benchmarks.performance.report import markdown
from benchmarks.performance.rows import ROWS, WARM_UP, Case, Row, curves, exponent
from benchmarks.slippery import SlipperyGatheringEnv
from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.assignment import DEFAULT_ASSIGNMENT, EpisodeAssignment
from tests.common.told import QUICK, WALKS, aims, near, tell, trajectory, with_a_stray
from tests.common.told import lessons as lessons_of


def test_exponent_of_a_power() -> None:
    x = [10, 100, 1000]
    assert exponent(x, [3.0 * value**0.7 for value in x]) == pytest.approx(0.7)
    assert exponent([1, 10, 100], [1, 10, 1]) == pytest.approx(0.0)  # the least-squares line, not the one through the ends
    assert exponent([5], [1.0]) is None


def test_targets() -> None:
    faster = Row("", Case(50, 100), bound=8.0, memory=2.5)
    assert faster.met(8.0, 2.4) and not faster.met(7.9, 2.4) and not faster.met(9.0, 2.5)
    cost = Row("", Case(5, 10_000), bound=2.0, base=Case(5, 100))
    assert cost.met(2.0, 100.0) and not cost.met(2.1, 0.1)
    assert (faster.target(), cost.target()) == ("≥ 8, < 2.5 GB", "≤ 2 times n = 100")


def test_names_and_points() -> None:
    assert len({row.name for row in ROWS}) == len({row.case for row in ROWS}) == len(ROWS)
    for cores in (1, 2, 6):
        for curve in curves(cores):
            assert curve.values() == sorted(set(curve.values()))
    assert curves(6)[-1].values() == [1, 2, 4, 6]


def test_products_by_hand() -> None:
    """One hidden layer: per transition 3 * 4 + 4 * 2 multiplications of the actor, 3 * 4 + 4 * 5 of the critic."""
    counts = products(1, actor=[3, 4, 2], critic=[3, 4, 5], n_steps=8, batch_size=8, n_epochs=1)
    forward, backward_weights, backward_inputs = 20 + 32, 20 + 32, 4 * 2 + 4 * 5
    expected = 8 * (20 + (20 + 32) + forward + backward_weights + backward_inputs)
    assert sum(count * product.flops for product, count in counts.items()) == 2 * expected
    more = products(2, actor=[3, 4, 2], critic=[3, 4, 5], n_steps=8, batch_size=4, n_epochs=3)
    expected = 2 * 8 * (20 + (20 + 32) + 3 * (forward + backward_weights + backward_inputs))
    assert sum(count * product.flops for product, count in more.items()) == 2 * expected


def test_products_of_a_model() -> None:
    model = RepresentedPPO("MlpPolicy", "rmdp/ResourceGathering-v0", k=3, n_steps=64, n_epochs=2, device="cpu")
    counts = products_of(model)
    assert counts == products(3, [27, 64, 64, 4], [27, 64, 64, 25], n_steps=64, batch_size=64, n_epochs=2)
    assert counts[Product(3, 27, 64)] == 64 and Product(3 * 64, 64, 25) in counts
    assert isinstance(counts, Counter) and all(
        product.seconds() > 0 for product in [Product(2, 3, 4), Product(2, 3, 4, batch=2)]
    )


def test_whoever_calls_is_not_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)

    def takes(seconds: float) -> None:
        nonlocal now
        now += seconds

    watch = Stopwatch()
    inner = watch.timed("inner", takes)

    def outer_work() -> None:
        takes(1.0)
        inner(10.0)
        takes(2.0)

    def steps():  # type: ignore[no-untyped-def]
        for seconds in (4.0, 5.0):
            takes(seconds)
            yield seconds

    watch.timed("outer", outer_work)()
    for _ in watch.timed_steps("steps", steps)():
        takes(100.0)
    watch.switch("rest")
    assert watch.seconds == {"rest": 200.0, "outer": 3.0, "inner": 10.0, "steps": 9.0}


def test_shares_of_an_update() -> None:
    model = RepresentedPPO("MlpPolicy", "rmdp/ResourceGathering-v0", k=2, n_steps=128, n_epochs=1, device="cpu").learn(256)
    found = shares(model, 256)
    assert tuple(found) == PARTS and sum(found.values()) == pytest.approx(1.0) and min(found.values()) > 0
    assert "step" not in vars(model.env)  # the clock is gone


def test_what_is_committed_says_what_it_measured() -> None:
    report = json.loads(Path("benchmarks/results/performance.json").read_text(encoding="utf-8"))
    text = Path("benchmarks/results/performance.md").read_text(encoding="utf-8")
    assert text.split("The rival is")[0] == markdown(report, True).split("The rival is")[0]
    assert report["assignment"] == "em" and 'assignment="em"' in text


def test_the_default_assignment_is_measured() -> None:
    side = represented(Case(2, 20), {"n_steps": 32, "batch_size": 16, "n_epochs": 1})
    assert isinstance(side.model, RepresentedPPO) and side.model.assignment_method == DEFAULT_ASSIGNMENT
    side.update(WARM_UP)
    assert int(side.model.assignment.n_updates) == WARM_UP > side.model.assignment.warm_start


def test_a_quick_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--rows", "5x100", "--curves", "n-full"]
    assert main(["--quick", "--repeats", "2", "--out", str(tmp_path), *chosen]) == 0
    report = json.loads((tmp_path / "performance.json").read_text(encoding="utf-8"))
    assert {"command", "date", "machine", "versions", "work", "rows", "curves", "seconds"} <= set(report)
    assert report["assignment"] == "episodes" and report["warm_up"] == 10
    for row in report["rows"]:
        assert row["ours"]["repeats"] == 2 and row["ours"]["min"] <= row["ours"]["median"] <= row["ours"]["max"]
        assert row["ratio"] == pytest.approx(row["rival"]["median"] / row["ours"]["median"])
        assert set(row["shares"]) == set(PARTS) and min(row["floor"].values()) > 0
        assert 0.1 < row["memory_gb"] < 4 and isinstance(row["met"], bool)
    (curve,) = report["curves"]
    # The first point was measured as a row
    assert [point["x"] for point in curve["points"]] == [100, 1000]
    assert curve["points"][0]["seconds"] == report["rows"][0]["ours"]["median"]
    text = (tmp_path / "performance.md").read_text(encoding="utf-8")
    assert "quick run" in text and "| (5, 100) | " in text and "What limits next" in text
    assert "| (5, 100) | " in capsys.readouterr().out


def test_rows_without_figures_are_reported() -> None:
    row = {"name": "x", "case": vars(Case(50, 1000, critic_rank=8)), "target": "≥ 14", "skipped": "for a reason"}
    report = dict(command="", date="", seconds=1, quick=False, rows=[row], curves=[], versions={}, assignment="em", warm_up=1)
    report["machine"] = dict(cpu="", cores=1, memory_gb=1, load_at_start=0)
    report["work"] = dict(n_steps=1, n_epochs=1, batch_size=1)
    assert "| (50, 1000), critic_rank=8 |  |  |  |  | ≥ 14 |  | skipped: for a reason |" in markdown(report, has_picture=False)


def test_parts_run_beside_each_other(tmp_path: Path) -> None:
    """A part goes on in a thread or a process until the other is timed, and no longer."""
    for in_thread in (True, False):
        note = tmp_path / str(in_thread)

        def work(note: Path = note) -> None:
            with note.open("a", encoding="utf-8") as file:
                file.write("x")
            time.sleep(0.001)

        with overlap.beside(work, in_thread):
            while not note.exists() or note.stat().st_size < 3:
                time.sleep(0.01)
        size = note.stat().st_size
        time.sleep(0.05)
        assert note.stat().st_size == size
    times = iter([0.0, 3.0, 10.0, 11.0, 20.0, 22.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.perf_counter", lambda: next(times))
        assert overlap.seconds(lambda: None, 3) == 2.0


def test_parts_of_an_update() -> None:
    parts = overlap.Parts(2, 3)
    adam = parts.gradients._adam
    for name, gradient in zip(("actor", "critic"), parts.gradients._gradients, strict=True):
        gradient.zero_()
        getattr(parts, name)()
        assert gradient.abs().sum() > 0, name
    assert adam.gradient.isfinite().all()
    parts.gradients.finish()


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (main, paths.main, overlap.main, devices.main):
        with pytest.raises(SystemExit) as exit_:
            command(["--help"])
        assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert all(
        option in text for option in ("--rows", "--curves", "--repeats", "--quick", "--device", "--seeds", "--episodes")
    )


def test_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The CPU against itself, as there is no other device on every machine, with the two least cases."""
    monkeypatch.setattr(devices, "VECTORS", dict([*devices.VECTORS.items()][:1]))
    monkeypatch.setattr(devices, "QUICK_WORK", {"n_steps": 8, "batch_size": 8, "n_epochs": 1})
    out = tmp_path / "devices.json"
    assert devices.main(["--quick", "--device", "cpu", "--repeats", "1", "--out", str(out)]) == 0
    report = json.loads(out.read_text(encoding="utf-8"))
    assert [row["case"] for row in report["rows"]] == [*devices.VECTORS, devices.IMAGES]
    for row in report["rows"]:
        assert len(row["cpu"]) == len(row["other"]) == 1
        assert row["ratio"] == row["other"][0] / row["cpu"][0]
    assert report["device"] == "cpu"
    with pytest.raises(SystemExit):
        devices.main(["--device", "cpu", "--repeats", "0"])
    assert "choose 1 or more" in capsys.readouterr().err
    assert devices.main(["--quick", "--device", "cpu", "--repeats", "1", "--case", "Resource", "--out", str(out)]) == 0
    report = json.loads(out.read_text(encoding="utf-8"))
    assert [row["case"] for row in report["rows"]] == [*devices.VECTORS]
    assert report["command"].endswith("--case Resource")
    with pytest.raises(SystemExit):
        devices.main(["--device", "cpu", "--case", "Pendulum"])
    assert devices.IMAGES in capsys.readouterr().err
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit):
            devices.main([])
        assert "there is no GPU" in capsys.readouterr().err


def test_both_paths_learn_the_same(tmp_path: Path) -> None:
    """Equal random numbers, equal arithmetic up to rounding: a short training ends alike, and each run is written down."""
    out = tmp_path / "paths.json"
    arguments = ["paths", "--seeds", "1", "--transitions", "2048", "--episodes", "1", "--out", str(out)]
    paths.main(arguments)
    paths.main(arguments)
    report = json.loads(out.read_text(encoding="utf-8"))
    fast, plain = report["runs"]
    assert (fast["variant"], plain["variant"]) == ("fast", "plain")
    assert fast["deterministic"] == plain["deterministic"]
    assert report["summary"][0]["deterministic"] == {"mean": fast["deterministic"], "standard_error": None}


def test_summary_has_standard_errors() -> None:
    base = dict(comparison="critics", variant="full", transitions_per_policy=10)
    runs = [base | dict(seed=seed, deterministic=value, stochastic=0.0) for seed, value in enumerate([1.0, 2.0, 6.0])]
    (entry,) = paths.summary(runs)
    assert entry["seeds"] == [0, 1, 2]
    assert entry["deterministic"] == {"mean": 3.0, "standard_error": round(float(np.sqrt(7.0 / 3.0)), 3)}


def sent_away(cls: type[EpisodeAssignment]) -> EpisodeAssignment:
    assignment = cls(4, 2, **QUICK)
    own = [(0, [5, 5, 0, 0], 0.0), (1, [4, 4, 0, 0], 1.0)]
    tell(assignment, [*own, (1, [0, 0, 3, 3], 2.0)], countable=False)
    tell(assignment, own, countable=False)
    assert aims(assignment) == [None, 2.0] and assignment.representatives.tolist() == [0, 0, 1, 1]
    return assignment


def test_ablations_leave_out_what_they_say() -> None:
    assert lessons_of(sent_away(EpisodeAssignment)) == [(1, 2.0, True)]
    assert lessons_of(sent_away(ablations.WithoutImitation)) == []
    assert lessons_of(sent_away(ablations.WithoutCopies)) == [(1, 2.0, False)]
    assert aims(with_a_stray(0.0, WALKS, fallen=[0.0, 1.0])) == [None, None]
    assert aims(with_a_stray(0.0, WALKS, fallen=[0.0, 1.0], cls=ablations.FullPromises)) == [None, 2.0]
    for fallen, aim in (([0.0, 1.0], 2.0), ([2.0], None)):
        assert aims(with_a_stray(0.0, WALKS, fallen, cls=ablations.LastingOnly)) == [None, aim]
    # With one of two fallen five moments for two agents are more than what they have together, with both there are none
    for fallen, aim in (([1.0], 2.0), ([0.0, 1.0], None)):
        assert aims(with_a_stray(0.0, WALKS, fallen, cls=ablations.SharedPromises)) == [None, aim]
    # Of forty steps the best two count, and not the best one; what fell promises nothing, and is no measure
    walk = np.zeros((40, 2))
    walk[10:20, 0], walk[30, 0], walk[30:32, 1] = 0.5, 0.9, 0.7
    for lasted in (True, False):
        stretches = ablations.Stretches(2, 1)
        stretches.record_trajectories([trajectory(0.0, walk, truncated=lasted)], [walk.sum(axis=0)])
        (episode,) = stretches.archive.episodes
        np.testing.assert_allclose(episode.moment, [0.5, 0.0] if lasted else [0.0, 0.0], rtol=1e-6)
        assert stretches._best_moment == pytest.approx(0.5 if lasted else 0.0, rel=1e-6)
    assert lessons_of(near(2, 0.0, countable=False)) == []
    assert lessons_of(near(2, 0.0, countable=False, cls=ablations.ByHeart)) == [(0, 2.0, False)]


def test_slippery_gathering() -> None:
    def paid(seed: int, moves: list[int], **kwargs: Any) -> tuple[list[Any], np.ndarray]:
        env = SlipperyGatheringEnv(**kwargs)
        env.reset(seed=seed)
        for move in moves:
            _, reward, terminated, _, info = env.step(move)
            if terminated:
                break
        assert reward == pytest.approx(info["reward_vector"].mean())
        return env.path, info["reward_vector"]

    tour = [0, 2, 1, 3]
    path, due = paid(0, tour)
    assert path == [(4, 2), (3, 2), (3, 1), (4, 1), (4, 2)] and sorted(set(due.tolist())) == [0.0, 96.0]
    # Twice or nothing, to each on its own, and as much in the mean
    lucky = np.array([paid(seed, tour, luck=True)[1] for seed in range(400)])
    assert set(lucky[:, due > 0].flat) == {0.0, 192.0} and not lucky[:, due == 0].any()
    np.testing.assert_allclose(lucky.mean(axis=0), due, atol=4 * 96 / 20)
    assert len(np.unique(lucky, axis=0)) == 2**4
    # One step in four that slips goes where it should
    straight = np.mean([paid(seed, tour[:1], slip=0.4)[0][-1] == (3, 2) for seed in range(400)])
    assert straight == pytest.approx(0.7, abs=4 * np.sqrt(0.7 * 0.3 / 400))


def test_fairness(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Between the fastest and the slowest agent, so that both have (0.5 - 0.25) / 0.5 of a hundred
    assert fairness.best_speed("egalitarian")["worst"] == pytest.approx(50.0, abs=0.2)
    # The median speed: of the twenty, each has 1 - 0.375 / 0.5 of a hundred
    assert fairness.best_speed("utilitarian")["worst"] == pytest.approx(25.0, abs=0.3)
    assert fairness.best_speed("utilitarian, minimum = 40")["worst"] == pytest.approx(40.0, abs=0.2)
    out, chosen = tmp_path / "fairness.json", ["gini", "utilitarian, minimum = 40"]
    for _ in range(2):
        fairness.main(["--seeds", "0", "--transitions", "2048", "--episodes", "1", "--out", str(out), "--welfare", *chosen])
    runs = json.loads(out.read_text(encoding="utf-8"))
    assert [run["welfare"] for run in runs] == chosen  # and none of them twice
    table = capsys.readouterr().out
    assert all(f"| {name} | 0 | " in table for name in chosen) and "(40.0" in table
    fairness.main(["--summary", "--out", str(out), "--picture", str(tmp_path / "fairness.png")])
    assert (tmp_path / "fairness.png").stat().st_size > 10_000
    axes = fairness.picture(runs).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a constant speed", *chosen]
    # At a minimum of 40 the eighty around 1 m/s have 77.5 or so, and the twenty 40
    (ring,) = [line for line in axes.lines if len(line.get_xdata()) == 1 and abs(line.get_ydata()[0] - 40.0) < 0.2]
    assert ring.get_xdata()[0] == pytest.approx(72.0, abs=0.2)
