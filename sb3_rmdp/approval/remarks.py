"""What a reviewer should look at first, said by the numbers themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import stats

from sb3_rmdp.approval.findings import LEVEL, Findings, StressFindings
from sb3_rmdp.common.report import better_elsewhere

#: An agent with less than this share of the mean utility is left behind
LEFT_BEHIND = 0.5


def remarks(findings: Findings) -> Iterator[str]:
    """
    :param findings: numbers
    :return: sentences; none if nothing stands out
    """
    result, facts = findings.result, findings.provenance
    lagging = better_elsewhere(result)
    if len(lagging):
        yield (
            f"{_agents(len(lagging))} did clearly better with another representative than with {_its(len(lagging))} own, by "
            "more than chance explains. If everybody took the best one, welfare would be "
            f"{result.greedy_social_welfare:.2f} and not {result.social_welfare:.2f}, in other episodes a little less."
        )
    mean = result.agent_utilities.mean()
    poor = int((result.agent_utilities < LEFT_BEHIND * mean).sum()) if mean > 0 else 0
    if poor:
        has = "have" if poor > 1 else "has"
        yield f"{_agents(poor)} of {facts.n_agents} {has} less than half of the mean utility, see Worst-off agents."
    idle = [row.index for row in findings.representatives if not len(row.agents)]
    if idle:
        yield f"Serving nobody: representative {', '.join(map(str, idle))}."
    seldom = int((findings.own_best < 0.5).sum())
    if seldom and len(findings.seeds) > 1:
        yield f"{_agents(seldom)} had another best representative in most of the evaluation seeds, see Stability."
    falls = _falls(findings.stress, findings.n_eval_episodes - 1)
    if falls:
        worst = min(falls, key=lambda case: case.change)
        before = findings.by_seed[0].social_welfare
        share = f" ({100 * worst.change / before:.0f} %)" if before > 0 else ""
        yield f"Under stress ({worst.name}) welfare changes by {worst.change:.2f}{share}; clear falls in all: {len(falls)}."
    for case in findings.stress:
        if case.why_not.startswith("it failed"):
            yield f"Stress case {case.name}: {case.why_not}."
    other = [
        f"{name} {then}, now {facts.versions[name]}"
        for name, then in (facts.file.saved_with.items() if facts.file else ())
        if facts.versions.get(name, then) != then
    ]
    if other:
        yield f"The model was saved with other versions: {'; '.join(other)}."
    if result.n_eval_episodes == 1:
        yield "One episode per representative: how reliable the numbers are is not known."


def _falls(cases: Sequence[StressFindings], df: int) -> list[StressFindings]:
    """
    Cases in which welfare is lower by more than chance explains: one-sided t tests, that all of them together err seldom.

    :param cases: all of them; those that could not be had have no numbers
    :param df: degrees of freedom of their errors; with 0 nothing is known
    """
    tested = [case for case in cases if np.isfinite(case.change_error)]
    if not tested or df < 1:
        return []
    doubt = stats.t.ppf(1 - (1 - LEVEL) / len(tested), df)
    return [case for case in tested if case.change < -doubt * case.change_error and not np.isclose(case.change, 0.0)]


def _agents(count: int) -> str:
    return f"{count} agent" + "s" * (count > 1)


def _its(count: int) -> str:
    return "their" if count > 1 else "its"
