"""The page: from numbers and pictures to HTML, a function per section."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp.approval import sections
from sb3_rmdp.approval.behaviour import Behaviour
from sb3_rmdp.approval.findings import LEVEL, Findings, half_width
from sb3_rmdp.approval.html import (
    Markup,
    bullets,
    details,
    element,
    join,
    page,
    paragraph,
    section,
    table,
)
from sb3_rmdp.approval.remarks import remarks
from sb3_rmdp.approval.sections import TITLES
from sb3_rmdp.approval.wording import NOT_KNOWN, Numbers, code, count, spaced
from sb3_rmdp.common.report import CHANCE, better_elsewhere, plain


def write_page(findings: Findings, behaviours: Sequence[Behaviour], env: VecEnv, title: str | None = None) -> str:
    """
    :param findings: numbers
    :param behaviours: one per representative
    :param env: the environment, for pictures of who is served by whom
    :param title: of the page
    :return: a whole HTML document
    """
    facts = findings.provenance
    told = title or f"{count(facts.k, 'policy', 'policies')} for {count(facts.n_agents, 'agent', 'agents')}: {facts.env_id}"
    links = bullets(
        element("a", name, href=f"#{anchor}") for anchor, name in TITLES.items() if anchor != "stress" or findings.stress
    )
    parts = [
        element("header", element("h1", told), _summary_line(findings)),
        element("nav", links, aria_label="Sections"),
        element("main", join(_sections(findings, behaviours, env))),
        element(
            "footer", f"Written by sb3_rmdp {facts.versions['sb3_rmdp']} on {facts.date:%Y-%m-%d %H:%M %Z}.".replace("  ", " ")
        ),
    ]
    return page(told, "en-GB", *parts)


def _sections(findings: Findings, behaviours: Sequence[Behaviour], env: VecEnv) -> Iterable[Markup]:
    yield _cards(findings)
    noted = list(remarks(findings))
    if noted:
        yield element("aside", element("h2", "To look at first"), bullets(noted), class_="attention")
    yield _trained(findings)
    yield sections.representatives(findings, behaviours, env)
    yield sections.utilities(findings)
    yield sections.worst_off(findings)
    yield sections.stability(findings)
    if findings.stress:
        yield sections.stress(findings)
    yield _method(findings)


def _summary_line(findings: Findings) -> Markup:
    facts, seeds = findings.provenance, len(findings.seeds)
    actions = "likeliest" if findings.deterministic else "sampled"
    return paragraph(
        f"{facts.algorithm} in {facts.env_id}, {count(findings.result.n_eval_episodes, 'episode', 'episodes')} per "
        f"representative ({count(seeds, 'seed', 'seeds')} of {findings.n_eval_episodes}), {actions} actions. "
        f"Report of {facts.date:%Y-%m-%d}."
    )


def _cards(findings: Findings) -> Markup:
    result, number = findings.result, Numbers(findings)
    worst = float(half_width(np.array(result.worst_error), result.n_eval_episodes - 1))
    cards: list[tuple[str, str, str]] = [
        ("Social welfare", number.interval(result.social_welfare, findings.welfare_half_width), "mean utility of all agents"),
        ("Worst-off agent", number.interval(result.worst_utility, worst), f"agent {result.worst_agent}"),
        ("Gini coefficient", number(result.gini), "0: all have the same"),
        ("Nash welfare", number(result.nash_welfare), "geometric mean of utilities"),
    ]
    if result.share_of_optimum is not None:
        share = f"{100 * result.share_of_optimum:.1f} %"
        cards.insert(1, ("Share of the best", share, f"optimum or upper bound: {number(result.optimum)}"))
    lagging = len(better_elsewhere(result))
    cards.append(("Clearly better elsewhere", str(lagging), f"of {count(len(result.assignment), 'agent', 'agents')}"))
    return element(
        "dl",
        *[element("div", element("dt", name), element("dd", value, element("small", note))) for name, value, note in cards],
        class_="cards",
    )


def _trained(findings: Findings) -> Markup:
    facts, file = findings.provenance, findings.provenance.file
    features = "a reward each" if facts.n_features is None else f"factored: {facts.n_features} reward features"
    rows: list[tuple[object, object]] = [
        ("Environment", code(facts.env_id)),
        *[(join(["its ", code(name)], ""), code(repr(plain(value)))) for name, value in facts.env_kwargs.items()],
        ("Observations", join([code(facts.observation_space), ", normalised by VecNormalize" * facts.normalized], "")),
        ("Actions", code(facts.action_space)),
        ("Agents", f"{facts.n_agents}, {features}"),
        ("Population", NOT_KNOWN if facts.population_id is None else code(facts.population_id)),
        ("Representatives", facts.k),
        ("Assignment", join([code(facts.assignment), _arguments(facts.assignment_kwargs)], "")),
        ("Welfare of the training", join([code(facts.welfare), _arguments(facts.welfare_kwargs)], "")),
        ("Transitions", f"{spaced(facts.timesteps)} in total, {spaced(facts.timesteps // facts.k)} per representative"),
        ("Seed of the training", "none" if facts.seed is None else facts.seed),
    ]
    if file is None:
        rows.append(("Model file", "none: the report was written for a model in memory"))
    else:
        rows += [("Model file", join([code(file.name), f", {file.size} bytes"], "")), ("its SHA-256", code(file.sha256))]
    saved_with = {} if file is None else file.saved_with
    names = list(dict.fromkeys([*facts.versions, *saved_with]))
    versions = [(name, saved_with.get(name, NOT_KNOWN), facts.versions.get(name, NOT_KNOWN)) for name in names]
    settings = [(code(name), code(value)) for name, value in facts.hyperparameters.items()]
    return section(
        "trained",
        TITLES["trained"],
        table("Environment, agents and training", (), rows, "text"),
        details("Hyperparameters", table(f"Arguments of {facts.algorithm}", ("argument", "value"), settings, "text")),
        details("Versions", table("Software", ("package", "model saved with", "report written with"), versions, "text")),
    )


def _method(findings: Findings) -> Markup:
    level = f"{100 * LEVEL:.0f} %"
    actions = (
        "Actions were the likeliest ones of each policy."
        if findings.deterministic
        else "Actions were drawn from the policies, as in training."
    )
    return section(
        "method",
        TITLES["method"],
        bullets(
            [
                "Every representative acted for the same number of episodes, and all agents were scored in each of them. "
                f"Utility is the mean undiscounted return over episodes. {actions}",
                f"Seeds of the evaluation: {', '.join(map(str, findings.seeds))}; {findings.n_eval_episodes} episodes per "
                "representative and seed.",
                f"± is half of a {level} confidence interval over episodes (Student's t, with one degree of freedom less than "
                "there are episodes per representative). It tells how well these numbers are known for this model, and "
                "nothing about models of other trainings. Intervals are of one number each: among a hundred, a few miss. "
                "Single episodes have none: how reliable they are is not known.",
                "Agents of one representative share its episodes: their intervals are not independent of each other.",
                f"Where ± is 0, all {findings.result.n_eval_episodes} episodes were worth the same. What happens seldom may "
                "not have happened in any of them: of what happens in one of N / 3 episodes, N episodes show nothing with a "
                "probability of 5 %.",
                "Agents and representatives that are named for being worst or best are chosen by episodes 0, 2, ... of each "
                "representative, and their numbers are of episodes 1, 3, ...",
                "An agent counts as clearly better off elsewhere by a t test, whose level allows for the number of the other "
                f"representatives and of the agents: of those who count, at most {100 * CHANCE:.0f} % are expected to by "
                "chance.",
            ]
        ),
    )


def _arguments(kwargs: dict) -> str:
    told = ", ".join(f"{name}={plain(value)!r}" for name, value in kwargs.items())
    return f" ({told[:200]}{'…' if len(told) > 200 else ''})" if told else ""
