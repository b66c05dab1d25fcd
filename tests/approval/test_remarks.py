"""What a reviewer is told to look at first."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import pytest

from sb3_rmdp.approval.findings import Findings, StressFindings, collect_findings
from sb3_rmdp.approval.plan import make_plan
from sb3_rmdp.approval.provenance import ModelFile
from sb3_rmdp.approval.remarks import remarks
from tests.approval.probes import make_model
from tests.probes import Waiting, vectorized


@pytest.fixture
def calm() -> Findings:
    """Everybody is served by the one representative, in an environment without chance."""
    env = vectorized(Waiting, 1)
    model = make_model(env, [0] * 6)
    findings = collect_findings(model, env, make_plan(env, 6, 4, seeds=2, stress=False))
    # Equal utilities, so that nobody is left behind
    result = dataclasses.replace(findings.result, utilities=np.ones((6, 1)), social_welfare=1.0)
    return dataclasses.replace(findings, result=result, by_seed=(result, result))


def told(findings: Findings, **changes: Any) -> str:
    return " ".join(remarks(dataclasses.replace(findings, **changes)))


def test_nothing_stands_out(calm: Findings) -> None:
    assert told(calm) == ""


def test_agents_that_are_left_behind(calm: Findings) -> None:
    utilities = np.array([[0.0], [0.4], [1.0], [1.0], [1.0], [2.0]])
    text = told(calm, result=dataclasses.replace(calm.result, utilities=utilities))
    assert text == "2 agents of 6 have less than half of the mean utility, see Worst-off agents."


def test_agents_that_are_better_elsewhere(calm: Findings) -> None:
    changes: dict[str, Any] = dict(
        utilities=np.array([[1.0, 5.0]] + [[1.0, 0.0]] * 5),
        utilities_standard_error=np.full((6, 2), 0.1),
        greedy=np.array([1, 0, 0, 0, 0, 0]),
        greedy_social_welfare=10 / 6,
    )
    text = told(calm, result=dataclasses.replace(calm.result, **changes))
    assert text.startswith("1 agent did clearly better with another representative than with its own")
    assert "would be 1.67 and not 1.00" in text


def test_clear_falls_under_stress_and_no_others(calm: Findings) -> None:
    case = partial(StressFindings, welfare=0.0, standard_error=0.1, change_error=0.1)
    # With four episodes an interval is 3.18 standard errors
    cases = (case("a", change=-0.31), case("b", change=0.9), case("c", change=-0.5), case("d", change=-0.6))
    text = told(calm, stress=(*cases, StressFindings("e", "not here"), StressFindings("f", "it failed: out of order")))
    first = "Under stress (d) welfare changes by -0.60 (-60 %); clear falls in all: 2."
    assert text == f"{first} Stress case f: it failed: out of order."


def test_other_versions_and_seeds(calm: Findings) -> None:
    file = ModelFile("model.zip", 1, "0", {"numpy": "1.0", "operating system": "another"})
    facts = dataclasses.replace(calm.provenance, file=file)
    assert told(calm, provenance=facts) == f"The model was saved with other versions: numpy 1.0, now {np.__version__}."
    text = told(calm, own_best=np.array([0.0, 0.4, 0.5, 1.0, 1.0, 1.0]))
    assert text == "2 agents had another best representative in most of the evaluation seeds, see Stability."
