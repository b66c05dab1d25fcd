"""What a training has found, what it aims at, and what its policies do."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.found import EVERY, SERIES, best_of, main, plot

SWEEP = """
name: tiny
environments: [rmdp/ResourceGathering-v0]
k: [2]
algorithms: {episodes: {assignment_kwargs: {warm_start: 1}}, em: }
seeds: 1
transitions_per_policy: 2048
checkpoints: [2048]
n_eval_episodes: 1
hyperparams: {n_steps: 128, n_epochs: 1, planned_transitions: 4096}
results: tiny.csv
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yml"
    file.write_text(SWEEP, encoding="utf-8")
    return file


def test_the_best_of_all_sets() -> None:
    random = np.random.default_rng(0)
    for k, n_episodes in itertools.product((1, 2, 3), (3, 12)):
        utilities = random.random((n_episodes, 6))
        sets = itertools.combinations(range(n_episodes), k)
        best = max(utilities[list(chosen)].max(axis=0).mean() for chosen in sets)
        assert best_of(utilities, k) == pytest.approx(best)
    # Fewer episodes than policies, and none
    assert best_of(np.array([[1.0, 3.0]]), 2) == 2.0
    assert best_of(np.zeros((0, 4)), 2) == 0.0


def test_a_run_is_looked_at(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(sweep), "--algorithm", "episodes", "--out", str(tmp_path)])
    file = tmp_path / "found-ResourceGathering-v0-k2-episodes-seed0.json"
    seen = json.loads(file.read_text(encoding="utf-8"))
    assert seen["command"].startswith("python -m benchmarks.found") and seen["bound"] == 86.0
    assert seen["transitions"] == list(range(128 * EVERY, 2049, 128 * EVERY))
    assert all(len(seen[name]) == len(seen["transitions"]) for name in SERIES)
    # Aims are episodes, and no policies do better than the optimum
    aimed = [(aimed, found) for aimed, found in zip(seen["aimed"], seen["found"], strict=True) if aimed is not None]
    assert aimed and all(aimed <= found + 1e-3 for aimed, found in aimed) and 0.0 < max(seen["found"]) <= 86.0
    assert all(done <= 86.0 for done in seen["likeliest"])
    (axes,) = plot(seen).axes
    assert [line.get_label() for line in axes.lines] == [*SERIES.values(), "bound"]
    picture = file.with_suffix(".png")
    first = picture.read_bytes()
    picture.unlink()
    main([str(file), "--draw"])
    assert picture.read_bytes() == first
    assert f"{seen['likeliest'][-1]}, of 86.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "2 runs of .* are meant, and one can be watched: choose among"),
        (["--algorithm", "em"], "remembers no episodes: choose an algorithm that does"),
        (["--draw"], "tiny.yml: Expecting value"),
    ],
)
def test_runs_that_cannot_be_looked_at(
    arguments: list[str], told: str, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(sweep), *arguments])
    assert re.search(told, " ".join(capsys.readouterr().err.split()))
    assert list(sweep.parent.iterdir()) == [sweep]
