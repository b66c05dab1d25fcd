"""What a training is watched for: where representatives are, and who is sent away."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.moves import EVERY, Moves, main, plot
from sb3_rmdp.common.assignment import EpisodeAssignment
from tests.common.told import QUICK, tell

SWEEP = """
name: tiny
environments: [rmdp/HopperVelocity-v0]
k: [3]
n: [20]
algorithms: {episodes: {assignment_kwargs: {warm_start: 1, patience: 3}}, em: , random: }
seeds: 1
transitions_per_policy: 5120
checkpoints: [5120]
n_eval_episodes: 1
hyperparams: {n_steps: 256, n_epochs: 1, planned_transitions: 10240}
results: tiny.csv
"""


def test_who_is_sent_away_from_where() -> None:
    assignment = EpisodeAssignment(4, 2, **QUICK)
    moves = Moves(np.array([0.0, 1.0, 2.0, 4.0]), until=1000)
    moves.model = SimpleNamespace(assignment=assignment, k=2, num_timesteps=20)  # type: ignore[assignment]
    own = [(0, [5, 5, 0, 0], 0.0), (1, [4, 4, 0, 0], 1.0)]
    tell(assignment, [*own, (1, [0, 0, 2, 6], 2.0)], countable=False)
    served_before = np.flatnonzero(assignment.representatives == 1)
    moves._on_rollout_end()
    moves.model.num_timesteps = 40
    tell(assignment, own, countable=False)
    moves._on_rollout_end()
    (before,) = moves.states  # the second rollout is not one of every five
    assert before["transitions"] == 10 and sum(before["agents"]) == 4
    # In the first rollout representative 1 had two episodes, and pays their mean
    paid = np.array([2.0, 2.0, 1.0, 3.0])[served_before]
    assert before["welfare"][1] == pytest.approx(paid.sum() / 4)
    place = np.average(moves.places[served_before], weights=paid)
    (move,) = moves.moves
    assert move["from"] == pytest.approx(place, abs=1e-3) and move["agents"] == len(served_before)
    assert move == {
        **{name: move[name] for name in ("from", "agents")},
        "transitions": 20,
        "representative": 1,
        "welfare": before["welfare"][1],
        "to": 3.5,  # agents at 2 and 4, who have 2 and 6
        "new_agents": 2,
        "paid": 2.0,
        "lasting": True,
    }
    # What it paid as somebody else says nothing any more
    assert moves._before["places"] == [0.5, None] and moves._before["welfare"] == [2.5, 0.0]


def test_a_run_of_a_sweep_is_watched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = tmp_path / "tiny.yml"
    sweep.write_text(SWEEP, encoding="utf-8")
    for algorithm in ("episodes", "em"):
        main([str(sweep), "--algorithm", algorithm, "--seed", "0", "--out", str(tmp_path)])
        file = tmp_path / f"moves-HopperVelocity-v0-k3-{algorithm}-seed0.json"
        seen = json.loads(file.read_text(encoding="utf-8"))
        assert seen["command"].startswith("python -m benchmarks.moves") and seen["axis"] == "speed, m/s"
        assert [state["transitions"] for state in seen["states"]] == list(range(256, 5121, 256 * EVERY))
        assert all(sum(state["agents"]) == 20 for state in seen["states"])
        assert bool(seen["moves"]) == (algorithm == "episodes")
        above, below = plot(seen).axes
        named = [line for line in above.lines if str(line.get_label()).isdigit()]
        arrived = [line for line in above.lines if line.get_marker() == "o"]
        drawn = [move for move in seen["moves"] if move["from"] is not None and move["to"] is not None]
        assert len(named) == 3 and len(arrived) == len(drawn) and len(below.collections) == 3
        picture = file.with_suffix(".png")
        first = picture.read_bytes()
        picture.unlink()
        main([str(file), "--draw"])
        assert picture.read_bytes() == first
    assert "moves" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "3 runs of .* are meant, and one can be watched: choose among"),
        (["--algorithm", "random"], "does not assign by returns: choose an algorithm that does"),
        (["--k", "4"], "no run has k=4: choose among 3"),
        (["--draw"], "tiny.yml: Expecting value"),
    ],
)
def test_runs_that_cannot_be_watched(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "tiny.yml"
    sweep.write_text(SWEEP, encoding="utf-8")
    with pytest.raises(SystemExit):
        main([str(sweep), *arguments])
    message = " ".join(capsys.readouterr().err.split())
    assert re.search(told, message)
    assert list(tmp_path.iterdir()) == [sweep]
