"""Sections of the page that show what was found, a function each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_hex
from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp.approval import figures
from sb3_rmdp.approval.behaviour import Behaviour
from sb3_rmdp.approval.findings import LEVEL, Findings, RepresentativeFindings, StressFindings, half_width
from sb3_rmdp.approval.html import Markup, bullets, details, element, figure, image, join, paragraph, section, table
from sb3_rmdp.approval.wording import NOT_KNOWN, Numbers, count, ranges
from sb3_rmdp.common.report import best_representative
from sb3_rmdp.plots import palette

#: Agents that a table lists; the JSON file has all
MAX_ROWS = 500
#: Anchors and headings, in the order of the page
TITLES = {
    "trained": "What was trained",
    "representatives": "Representatives",
    "utilities": "Distribution of utilities",
    "worst-off": "Worst-off agents",
    "stability": "Stability",
    "stress": "Stress",
    "method": "How this was measured",
}


def representatives(findings: Findings, behaviours: Sequence[Behaviour], env: VecEnv) -> Markup:
    number = Numbers(findings)
    rows = [
        (
            element("a", row.index, href=f"#representative-{row.index}"),
            len(row.agents),
            number.interval(row.mean_utility, row.half_width),
            _worst(number, row),
            number(row.mean_over_all),
            f"{row.lengths[0]:.1f}",
            f"{100 * row.timed_out:.0f} %",
        )
        for row in findings.representatives
    ]
    header = ("representative", "agents", "mean utility", "worst off", "mean over all", "steps", "time-outs")
    caption = "Mean utility and worst off: of the agents it serves. Mean over all: of all agents, served by it or not."
    parts: list[Markup] = [table(caption, header, rows)]
    drawn = figures.assignment_figure(findings, env)
    if drawn is not None:
        parts.append(figure(drawn, "Who is served by whom.", "Agents by their representative"))
    colours = palette(findings.provenance.k)
    for row, behaviour, colour in zip(findings.representatives, behaviours, colours, strict=True):
        parts.append(_representative(findings, row, behaviour, to_hex(colour)))
    return section("representatives", TITLES["representatives"], *parts)


def _representative(findings: Findings, row: RepresentativeFindings, behaviour: Behaviour, colour: str) -> Markup:
    number, j = Numbers(findings), row.index
    mean, shortest, longest = row.lengths
    lengths = f"{mean:.1f} on average, from {shortest} to {longest}"
    stats = [
        ("Agents served", f"{len(row.agents)}: {ranges(row.agents)}" if len(row.agents) else "none"),
        ("Their mean utility", number.interval(row.mean_utility, row.half_width)),
        ("Worst off of them", _worst(number, row)),
        ("Steps of an episode", lengths),
        ("Ended by a time limit", f"{100 * row.timed_out:.0f} % of {count(row.n_episodes, 'episode', 'episodes')}"),
    ]
    who = count(len(row.agents), "agent", "agents") if len(row.agents) else "nobody"
    chart = figure(
        figures.representative_figure(findings, j),
        f"Utilities of all agents under representative {j}.",
        f"Histogram of utilities under representative {j}, agents that it serves apart from the others",
    )
    parts: list[Markup] = [
        element("h3", f"Representative {j}: serves {who}"),
        element("div", table(f"Representative {j} in figures", (), stats, "text"), chart, class_="pair"),
        _episode(number, behaviour),
    ]
    if behaviour.speeds:
        alt = f"Velocity of representative {j} at every step of an episode"
        parts.append(figure(figures.speed_figure(behaviour), "Velocity in the same episode.", alt))
    if len(row.agents):
        parts.append(details(f"Utility of each agent that representative {j} serves", _agents_table(findings, row.agents)))
    return element("article", join(parts), id=f"representative-{j}", style=f"--own: {colour}", class_="long")


def _episode(number: Numbers, behaviour: Behaviour) -> Markup:
    end = "ended by the time limit" if behaviour.timed_out else "ended by itself"
    paid = "" if math.isnan(behaviour.utility) else f"; mean return of the agents it serves: {number(behaviour.utility)}"
    told = f"One episode: {count(behaviour.steps, 'step', 'steps')}, {end}{paid}."
    if not behaviour.frames:
        reason = f" No pictures: {behaviour.why_none}." if behaviour.why_none else ""
        return paragraph(told, reason, note=True)
    j = behaviour.representative
    items = [
        element(
            "li",
            image(figures.frame(picture), f"Representative {j} after {step} steps"),
            "start" if step == 0 else f"step {step}",
        )
        for step, picture in behaviour.frames
    ]
    return element("figure", element("ul", *items, class_="strip"), element("figcaption", told))


def _agents_table(findings: Findings, agents: np.ndarray) -> Markup:
    number, result = Numbers(findings), findings.result
    rows = []
    for agent in agents[:MAX_ROWS]:
        own, found = result.assignment[agent], best_representative(result, agent)
        assert found is not None
        best, utility, error = found
        half = float(half_width(np.array(error), result.n_eval_episodes - 1))
        there = "itself" if best == own else f"{best}: {number.interval(utility, half)}"
        own_utility = number.interval(result.utilities[agent, own], findings.half_widths[agent, own])
        rows.append((int(agent), own_utility, there, f"{100 * findings.own_best[agent]:.0f} %"))
    left = len(agents) - len(rows)
    caption = "Utilities, and in how many of the seeds its own representative was the best one for the agent"
    shown = table(caption, ("agent", "utility", "best representative here", "own is best"), rows)
    return shown if not left else join([shown, paragraph(f"{left} more agents are not listed.", note=True)])


def utilities(findings: Findings) -> Markup:
    result, number = findings.result, Numbers(findings)
    levels = (0, 5, 25, 50, 75, 95, 100)
    names = ("minimum", "5 %", "25 %", "median", "75 %", "95 %", "maximum")
    values = np.percentile(result.agent_utilities, levels)
    worst = float(half_width(np.array(result.worst_error), result.n_eval_episodes - 1))
    best = result.greedy_social_welfare if np.isnan(result.greedy_cross_validated) else result.greedy_cross_validated
    rows = [
        ("Social welfare (mean)", number.interval(result.social_welfare, findings.welfare_half_width)),
        ("Nash welfare (geometric mean)", number(result.nash_welfare)),
        ("Worst off (egalitarian welfare)", number.interval(result.worst_utility, worst)),
        ("Gini coefficient", number(result.gini)),
        ("Welfare if everybody took the best here", number(best)),
    ]
    return section(
        "utilities",
        TITLES["utilities"],
        element(
            "div",
            figure(
                figures.utilities_figure(findings),
                "Agents by utility and representative.",
                "Histogram of the utilities of all agents, stacked by representative",
            ),
            figure(
                figures.sorted_figure(findings),
                f"Utilities in ascending order; grey: {100 * LEVEL:.0f} % confidence intervals.",
                "Utilities of all agents from the lowest to the highest",
            ),
            class_="pair",
        ),
        table("Welfare and inequality", (), rows),
        table("Quantiles of the utilities", ("", *names), [("utility", *map(number, values))]),
        paragraph(
            "The Gini coefficient and Nash welfare are not defined if an agent has a negative utility. Utilities are means of "
            "few episodes, whose noise looks like inequality: quantiles are too far apart, and the Gini coefficient is too "
            "high. The worst off is free of that: chosen by half of the episodes, and measured in the other half. So is the "
            "last line of the first table: best representatives are chosen by one half and measured in the other, mean of "
            "both ways.",
            note=True,
        ),
    )


def worst_off(findings: Findings) -> Markup:
    number = Numbers(findings)
    given = any(not math.isnan(row.gain_given) for row in findings.worst_off)
    bound = any(not math.isnan(row.gain_bound) for row in findings.worst_off)
    rows = []
    for row in findings.worst_off:
        cells: list[object] = [row.agent, row.representative, number.interval(row.utility, row.half_width)]
        if row.elsewhere is None:
            cells.append(NOT_KNOWN)
        else:
            there = number.interval(row.utility_elsewhere, row.half_width_elsewhere)
            cells.append(f"{row.elsewhere}: {there}")
        cells.append(number.signed(row.gain_seen))
        cells += [number.signed(row.gain_given)] if given else []
        cells += [number.signed(row.gain_bound)] if bound else []
        rows.append(cells)
    header = ["agent", "served by", "utility", "best other one here", "gain: best episode seen"]
    header += ["gain: policy of its own, given"] if given else []
    header += ["gain: at most"] if bound else []
    notes = [
        "Agents, and the other representatives that are best for them, are chosen by half of the episodes, and their "
        "utilities are those of the other half: the lowest of many means is too low. Gains are differences to the agent's "
        "utility. No policy was trained to find them:",
        "best episode seen is the single best episode of any representative for this agent. It was possible once; a policy of "
        "the agent's own may well do better, and where start states or dynamics are random, part of it is luck;",
    ]
    if given:
        notes.append("policy of its own, given: utilities that were handed in with this report, measured elsewhere;")
    notes.append(
        "at most: an upper bound of what any policy can give this agent, known from the task and not always within reach."
        if bound
        else "an upper bound is not known for this environment."
    )
    return section(
        "worst-off",
        TITLES["worst-off"],
        table("Agents with the lowest utility under their own representative", header, rows),
        paragraph(notes[0], note=True),
        bullets(notes[1:]),
    )


def stability(findings: Findings) -> Markup:
    number, seeds, own_best = Numbers(findings), findings.seeds, findings.own_best
    rows: list[Sequence[object]] = []
    for seed, one in zip(seeds, findings.by_seed, strict=True):
        half = float(half_width(np.array(one.standard_error), one.n_eval_episodes - 1))
        best = one.greedy_social_welfare if np.isnan(one.greedy_cross_validated) else one.greedy_cross_validated
        cells = (number.interval(one.social_welfare, half), number(best))
        rows.append((seed, *cells, f"{number(one.worst_utility)} (agent {one.worst_agent})"))
    welfare = np.array([one.social_welfare for one in findings.by_seed])
    if len(seeds) > 1:
        rows.append(("standard deviation", number(float(welfare.std(ddof=1))), "", ""))
    counts = {
        "always": own_best == 1.0,
        "mostly, in half of the seeds or more": (own_best >= 0.5) & (own_best < 1.0),
        "seldom": (own_best > 0.0) & (own_best < 0.5),
        "never": own_best == 0.0,
    }
    shares = [(name, int(hit.sum()), f"{100 * hit.mean():.1f} %") for name, hit in counts.items()]
    doubtful = np.flatnonzero(own_best < 1.0)
    parts = [
        paragraph(
            "Would other episodes have led to another assignment? Every seed has start states and actions of its own. Ties "
            "count for the own representative."
        ),
        element(
            "div",
            element(
                "div",
                table("Social welfare by seed", ("seed", "social welfare", "if everybody took the best", "worst off"), rows),
                table("Was its own representative the best one for the agent?", ("", "agents", "share"), shares),
            ),
            figure(
                figures.stability_figure(findings),
                "Agents by the number of seeds in which their own representative was the best one for them.",
                "Bars: agents by the number of seeds in which their own representative was best",
            ),
            class_="pair",
        ),
    ]
    if len(doubtful):
        parts.append(
            details(
                "Agents whose own representative was not always the best",
                _agents_table(findings, doubtful),
            )
        )
    return section("stability", TITLES["stability"], *parts)


def stress(findings: Findings) -> Markup:
    number, df = Numbers(findings), findings.n_eval_episodes - 1

    def cells(case: StressFindings) -> Sequence[object]:
        if case.why_not:
            told = case.why_not if case.why_not.startswith("it failed") else f"not applicable: {case.why_not}"
            return (case.name, told)
        error, change_error, worst_error = (
            float(half_width(np.array(value), df))
            for value in (case.standard_error, case.change_error, case.worst_change_error)
        )
        return (
            case.name,
            number.interval(case.welfare, error),
            number.interval(case.change, change_error, signed=True),
            f"{number(case.worst_utility)} (agent {case.worst_agent})",
            number.interval(case.worst_change, worst_error, signed=True),
        )

    calm = findings.by_seed[0]
    worst = f"{number(calm.worst_utility)} (agent {calm.worst_agent})"
    error = float(half_width(np.array(calm.standard_error), df))
    rows = [("none", number.interval(calm.social_welfare, error), "", worst, "")]
    header = ("stress", "social welfare", "change", "worst off", "change")
    parts = [
        table("Social welfare and the worst-off agent under other conditions", header, [*rows, *map(cells, findings.stress)]),
        paragraph(
            f"All of this is with seed {findings.seeds[0]}, whose evaluation is the first line. Changes are differences to "
            "it, and their intervals those of independent episodes: wider than need be, where start states are the same.",
            note=True,
        ),
        paragraph(
            "Observation noise is Gaussian, independent in every dimension and step; its standard deviation is a share of "
            "that of the observations in the evaluations above, as the policies see them. Who is served by whom stays as it "
            "is. The last column compares whoever is worst off in either, chosen by half of the episodes and measured in the "
            "other half. Of several falls that are shown, the largest is too large on average.",
            note=True,
        ),
    ]
    if any(not case.why_not for case in findings.stress):
        alt = "Change of social welfare under each condition, with its confidence interval"
        parts.insert(0, figure(figures.stress_figure(findings), "Change of social welfare against none.", alt))
    return section("stress", TITLES["stress"], *parts)


def _worst(number: Numbers, row: RepresentativeFindings) -> str:
    if row.worst_agent is None:
        return NOT_KNOWN
    return f"{number.interval(row.worst_utility, row.worst_half_width)} (agent {row.worst_agent})"
