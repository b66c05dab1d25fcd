"""Rows, tables and JSON of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_rmdp import WelfareEvaluation
from sb3_rmdp.common.report import as_dict, better_elsewhere, print_result, save_text, summarize, to_json, worst_off

UTILITIES = np.array([[4.0, 1.0, 0.0], [2.0, 9.0, 0.0], [3.0, 6.0, 0.0], [1.0, 5.0, 0.0]])
ERRORS = np.array([[0.5, 0.1, 0.0], [0.3, 0.4, 0.0], [1.0, 2.0, 0.0], [0.2, 0.1, 0.0]])


def evaluation(assignment: list[int], errors: np.ndarray = ERRORS, **kwargs: Any) -> WelfareEvaluation:
    """
    :param assignment: representative of each of the four agents
    :param errors: standard errors of :data:`UTILITIES`
    :param kwargs: other fields
    """
    served = np.array(assignment)
    fields: dict[str, Any] = dict(
        utilities=UTILITIES,
        utilities_standard_error=errors,
        assignment=served,
        greedy=UTILITIES.argmax(axis=1),
        social_welfare=float(UTILITIES[np.arange(4), served].mean()),
        standard_error=0.25,
        greedy_social_welfare=float(UTILITIES.max(axis=1).mean()),
        n_eval_episodes=10,
    )
    return WelfareEvaluation(**{**fields, **kwargs})


def test_rows_of_representatives() -> None:
    first, second, idle = summarize(evaluation([0, 1, 0, 1]))
    assert (first.n_agents, first.mean_utility, first.worst_agent, first.worst_utility) == (2, 3.5, 2, 3.0)
    assert (second.n_agents, second.mean_utility, second.worst_agent, second.worst_utility) == (2, 7.0, 3, 5.0)
    assert first.mean_over_all == 2.5 and second.mean_over_all == 5.25
    assert first.error_bound == pytest.approx((0.5 + 1.0) / 2)
    assert idle.n_agents == 0 and idle.worst_agent is None and np.isnan(idle.mean_utility) and idle.mean_over_all == 0.0


def test_the_bound_holds_for_the_error_of_a_group() -> None:
    """Whatever the correlation: episodes are drawn, and the group's own error is computed from them."""
    rng = np.random.default_rng(0)
    for mixing in (0.0, 0.5, 1.0):
        returns = mixing * rng.normal(size=(10, 1)) + (1 - mixing) * rng.normal(size=(10, 4))
        errors = np.zeros((4, 3))
        errors[:, 0] = returns.std(axis=0, ddof=1) / 10**0.5
        group = returns.mean(axis=1).std(ddof=1) / 10**0.5
        assert summarize(evaluation([0] * 4, errors))[0].error_bound >= group - 1e-12


def test_the_worst_off() -> None:
    assert worst_off(evaluation([0, 1, 1, 0]), 2).tolist() == [3, 0]
    assert len(worst_off(evaluation([0, 1, 1, 0]), 10)) == 4


def test_only_agents_that_gain_more_than_chance_are_better_off_elsewhere() -> None:
    # Agent 1 would gain 7 with an error of 0.5, agent 2 only 3 with one of 2.2; agent 3 has the best already
    assert better_elsewhere(evaluation([0, 0, 0, 1])).tolist() == [1]
    assert better_elsewhere(evaluation([0, 0, 0, 1], np.zeros((4, 3)))).tolist() == [1, 2]
    assert better_elsewhere(evaluation([0, 0, 0, 1], np.full((4, 3), np.nan))).tolist() == []


@pytest.mark.parametrize(("assignment", "noted"), [([0, 1, 1, 1], False), ([0, 0, 0, 1], True)])
def test_tables(assignment: list[int], noted: bool, capsys: pytest.CaptureFixture[str]) -> None:
    result = evaluation(assignment, optimum=8.0)
    print_result(result, deterministic=False)
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    assert "10 episodes each, sampled actions" in text
    if not noted:
        assert ["0", "1", "4.00", "+-", "0.50", "4.00", "(agent", "0)", "2.50"] in lines
        assert ["1", "3", "6.67", "+-", "0.83", "5.00", "(agent", "3)", "5.25"] in lines
    assert ["2", "0", "-", "-", "0.00"] in lines
    share = 100 * result.social_welfare / 8
    assert f"Worst off {result.worst_utility:.2f}, Nash welfare " in text and ", Gini coefficient 0." in text
    assert f"Social welfare {result.social_welfare:.2f} +- 0.25, {share:.1f} % of the optimum" in text
    assert ("The assignment lags behind" in text) is noted


def test_a_single_episode_has_no_errors_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(evaluation([0, 1, 1, 1], np.full((4, 3), np.nan), standard_error=np.nan), deterministic=True)
    text = capsys.readouterr().out
    assert "nan" not in text and "+-" not in text and "Social welfare 6.00\n" in text


def test_json_has_every_field_and_no_nan() -> None:
    result = evaluation([0, 1, 1, 1], np.full((4, 3), np.nan), standard_error=np.nan, optimum=8.0)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads(to_json(as_dict(result)), parse_constant=refuse)
    told = {"agent_utilities", "share_of_optimum", "worst_utility", "gini", "nash_welfare"}
    assert set(content) == set(vars(result)) | told
    assert content["worst_utility"] == 4.0 and content["nash_welfare"] == pytest.approx(1080.0**0.25)
    assert content["gini"] == pytest.approx((5 + 2 + 1 + 4 + 3 + 1) * 2 / (2 * 16 * 6.0))
    assert content["utilities"] == UTILITIES.tolist() and content["assignment"] == [0, 1, 1, 1]
    assert content["standard_error"] is None and content["utilities_standard_error"] == [[None] * 3] * 4
    assert content["share_of_optimum"] == 0.75 and content["agent_utilities"] == [4.0, 9.0, 6.0, 5.0]


def test_texts_are_written_under_a_name_with_a_suffix(tmp_path: Path) -> None:
    assert save_text("{}", tmp_path / "new" / "result", ".json") == tmp_path / "new" / "result.json"
    assert save_text("{}", tmp_path / "result.txt", ".json") == tmp_path / "result.txt"
    assert (tmp_path / "new" / "result.json").read_text() == (tmp_path / "result.txt").read_text() == "{}"
