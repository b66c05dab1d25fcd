"""The numbers of a report: evaluations over several seeds, what they say about representatives and agents, stress."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp.approval.episodes import EpisodeRecorder, Episodes, frozen
from sb3_rmdp.approval.own_policy import own_policy_bounds
from sb3_rmdp.approval.plan import MAX_SEED, Plan
from sb3_rmdp.approval.provenance import Provenance, provenance
from sb3_rmdp.approval.stress import StressCase
from sb3_rmdp.common.evaluation import WelfareEvaluation, evaluate_welfare
from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm
from sb3_rmdp.common.random_numbers import apart_from_training
from sb3_rmdp.common.report import as_dict, best_representative, own_utility, worst_off
from sb3_rmdp.common.seeds import seed_evaluation

#: Of confidence intervals
LEVEL = 0.95
#: How many agents are listed as the worst off
N_WORST = 10


@dataclass(frozen=True)
class RepresentativeFindings:
    """
    What a representative does for whom. Utilities are nan, and the agent is ``None``, where it serves nobody.

    :param index: which representative
    :param agents: those it serves, (m,) int64
    :param mean_utility: mean utility of these agents
    :param half_width: half of the confidence interval of ``mean_utility``; nan for a single episode
    :param worst_agent: the one of them that is worst off, by half of the episodes
    :param worst_utility: utility of that agent, in the other half
    :param mean_over_all: mean utility of all agents under this representative
    :param n_episodes: how many episodes these numbers are of
    :param lengths: mean, minimum and maximum of their steps
    :param timed_out: share of them that a time limit ended, from 0 to 1
    :param worst_half_width: half of the interval of ``worst_utility``
    """

    index: int
    agents: np.ndarray
    mean_utility: float
    half_width: float
    worst_agent: int | None
    worst_utility: float
    mean_over_all: float
    n_episodes: int
    lengths: tuple[float, int, int]
    timed_out: float
    worst_half_width: float = np.nan


@dataclass(frozen=True)
class WorstOff:
    """
    An agent that is badly off, and what it might gain from a policy of its own. Gains are differences to ``utility``.

    Agents, and representatives that are best for them, are chosen by episodes 0, 2, ... and measured in episodes 1, 3, ...

    :param agent: which agent
    :param representative: who serves it
    :param utility: its utility there
    :param half_width: half of the confidence interval of ``utility``
    :param elsewhere: the best one of the other representatives for it; ``None`` if there is only one
    :param utility_elsewhere: its utility under that one
    :param half_width_elsewhere: half of the interval of that
    :param gain_seen: gain if every episode were as good for it as the best one that was recorded, at least 0
    :param gain_given: gain by the utility that the user knows of a policy of its own; nan if there is none
    :param gain_bound: gain by an upper bound of what any policy can give it; nan if there is none
    """

    agent: int
    representative: int
    utility: float
    half_width: float
    elsewhere: int | None
    utility_elsewhere: float
    half_width_elsewhere: float
    gain_seen: float
    gain_given: float
    gain_bound: float


@dataclass(frozen=True)
class StressFindings:
    """
    One condition; numbers are nan if it could not be had.

    :param name: what is changed
    :param why_not: why it could not be had; empty if it could
    :param welfare: social welfare
    :param standard_error: of ``welfare``
    :param change: difference to the evaluation with the first seed, without stress
    :param change_error: standard error of ``change``
    :param worst_agent: the agent that is worst off under stress
    :param worst_utility: its utility
    :param worst_change: difference to the utility of whoever is worst off without stress
    :param worst_change_error: standard error of ``worst_change``
    """

    name: str
    why_not: str = ""
    welfare: float = np.nan
    standard_error: float = np.nan
    change: float = np.nan
    change_error: float = np.nan
    worst_agent: int | None = None
    worst_utility: float = np.nan
    worst_change: float = np.nan
    worst_change_error: float = np.nan


@dataclass(frozen=True)
class Findings:
    """
    All numbers of a report; made by :func:`collect_findings`.

    :param provenance: what was trained
    :param deterministic: whether actions were the likeliest ones
    :param seeds: of the evaluations
    :param n_eval_episodes: episodes per representative and seed
    :param by_seed: one evaluation per seed
    :param result: all of them as one
    :param half_widths: halves of the confidence intervals of ``result.utilities``, (n_agents, k)
    :param welfare_half_width: half of the confidence interval of social welfare
    :param representatives: one entry each
    :param worst_off: at most :data:`N_WORST` agents, the worst first
    :param own_best: share of the seeds in which the own representative was the best one, (n_agents,)
    :param stress: one entry per condition; empty if none was asked for
    """

    provenance: Provenance
    deterministic: bool
    seeds: tuple[int, ...]
    n_eval_episodes: int
    by_seed: tuple[WelfareEvaluation, ...]
    result: WelfareEvaluation
    half_widths: np.ndarray
    welfare_half_width: float
    representatives: tuple[RepresentativeFindings, ...]
    worst_off: tuple[WorstOff, ...]
    own_best: np.ndarray
    stress: tuple[StressFindings, ...]

    def as_dict(self) -> dict[str, Any]:
        """All of it by name, for :func:`sb3_rmdp.common.report.to_json`."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        content["provenance"] = dataclasses.asdict(self.provenance)
        content["result"], content["by_seed"] = as_dict(self.result), [as_dict(one) for one in self.by_seed]
        for name in ("representatives", "worst_off", "stress"):
            content[name] = [dataclasses.asdict(one) for one in content[name]]
        return content


@apart_from_training
def collect_findings(
    model: RepresentedOnPolicyAlgorithm,
    env: VecEnv,
    plan: Plan,
    path: str | Path | None = None,
    date: datetime | None = None,
) -> Findings:
    """
    Run all evaluations.

    :param model: the model
    :param env: a vec env with its agents
    :param plan: what to evaluate
    :param path: file that the model was loaded from
    :param date: of the report, now by default
    :return: the numbers
    :raises ValueError: if model and environment do not fit together
    """
    facts = provenance(model, env, path, date)
    recorded: list[Episodes] = []
    results: list[WelfareEvaluation] = []
    with frozen(env):
        for seed in plan.seeds:
            recorder = EpisodeRecorder(env, model, plan.n_eval_episodes, plan.spread)
            results.append(_evaluate(model, recorder, plan, seed))
            recorded.append(recorder.episodes())
        episodes = _joined(recorded)
        result = pool(results, episodes)
        stress = tuple(_stressed(model, env, plan, case, results[0]) for case in plan.stress)
    df = result.n_eval_episodes - 1
    half_widths = half_width(result.utilities_standard_error, df)
    return Findings(
        provenance=facts,
        deterministic=plan.deterministic,
        seeds=plan.seeds,
        n_eval_episodes=plan.n_eval_episodes,
        by_seed=tuple(results),
        result=result,
        half_widths=half_widths,
        welfare_half_width=float(half_width(np.array(result.standard_error), df)),
        representatives=tuple(_representative(j, result, episodes) for j in range(model.k)),
        worst_off=tuple(_worst(env, result, episodes, plan.own_policy_utilities)),
        own_best=np.mean([one.greedy == one.assignment for one in results], axis=0),
        stress=stress,
    )


def half_width(standard_error: np.ndarray, df: int) -> np.ndarray:
    """
    :param standard_error: standard errors of means over ``df + 1`` episodes
    :param df: degrees of freedom
    :return: halves of Student's confidence intervals of these means; nan for a single episode
    """
    return standard_error * (stats.t.ppf((1 + LEVEL) / 2, df) if df > 0 else np.nan)


def pool(results: Sequence[WelfareEvaluation], episodes: Episodes) -> WelfareEvaluation:
    """
    :param results: evaluations of one model with different seeds and equally many episodes
    :param episodes: all episodes of these
    :return: the evaluation that all episodes together make; the only one, if there is only one
    """
    first = results[0]
    if len(results) == 1:
        return first
    n, total = first.n_eval_episodes, first.n_eval_episodes * len(results)
    means = np.stack([one.utilities for one in results])
    utilities = means.mean(axis=0)
    # Squares within the seeds, which are not known but 0 if there is one episode in each, and between them
    errors = np.stack([np.zeros_like(utilities) if n == 1 else one.utilities_standard_error for one in results])
    squares = (n - 1) * n * np.square(errors).sum(axis=0) + n * np.square(means - utilities).sum(axis=0)
    agents, k = np.arange(len(first.assignment)), utilities.shape[1]
    own = utilities[agents, first.assignment]
    shares = np.bincount(first.assignment, minlength=k) / len(agents)
    variances = [shares[j] ** 2 * episodes.own_mean[episodes.representative == j].var(ddof=1) for j in np.flatnonzero(shares)]
    return WelfareEvaluation(
        utilities=utilities,
        utilities_standard_error=np.sqrt(squares / (total - 1) / total),
        assignment=first.assignment,
        greedy=np.where(own == utilities.max(axis=1), first.assignment, utilities.argmax(axis=1)),
        social_welfare=float(own.mean()),
        standard_error=float(np.sqrt(sum(variances) / total)),
        greedy_social_welfare=float(utilities.max(axis=1).mean()),
        n_eval_episodes=total,
        optimum=first.optimum,
        half_utilities=_pooled_halves(results),
    )


def _pooled_halves(results: Sequence[WelfareEvaluation]) -> np.ndarray | None:
    """Mean utilities of either half of all episodes, which are numbered from one seed to the next, (2, n_agents, k)."""
    n = results[0].n_eval_episodes
    sums, counts = np.zeros((2, *results[0].utilities.shape)), np.zeros((2, 1, 1))
    for seed, one in enumerate(results):
        halves = one.utilities[None] if n == 1 else one.half_utilities
        if halves is None:
            return None
        for half, (utilities, count) in enumerate(zip(halves, (n - n // 2, n // 2), strict=False)):
            of_all = (seed * n + half) % 2
            sums[of_all] += count * utilities
            counts[of_all] += count
    return sums / counts


def _evaluate(model: RepresentedOnPolicyAlgorithm, env: VecEnv, plan: Plan, seed: int) -> WelfareEvaluation:
    seed_evaluation(env, seed)
    return evaluate_welfare(model, env, plan.n_eval_episodes, plan.deterministic, plan.max_episode_steps)


def _joined(recorded: Sequence[Episodes]) -> Episodes:
    columns = {
        name: np.concatenate([getattr(one, name) for one in recorded])
        for name in ("representative", "length", "timed_out", "own_mean")
    }
    return Episodes(**columns, best=np.max([one.best for one in recorded], axis=0))


def _representative(j: int, result: WelfareEvaluation, episodes: Episodes) -> RepresentativeFindings:
    agents, column = np.flatnonzero(result.assignment == j), result.utilities[:, j]
    of_it = episodes.representative == j
    length, own, n = episodes.length[of_it], episodes.own_mean[of_it], int(of_it.sum())
    worst = int(worst_off(result, 1, agents)[0]) if len(agents) else None
    worst_utility, worst_error = (np.nan, np.nan) if worst is None else own_utility(result, worst)
    error = np.array(own.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan)
    return RepresentativeFindings(
        index=j,
        agents=agents,
        mean_utility=float(column[agents].mean()) if len(agents) else np.nan,
        half_width=float(half_width(error, n - 1)),
        worst_agent=worst,
        worst_utility=worst_utility,
        mean_over_all=float(column.mean()),
        n_episodes=n,
        lengths=(float(length.mean()), int(length.min()), int(length.max())),
        timed_out=float(episodes.timed_out[of_it].mean()),
        worst_half_width=float(half_width(np.array(worst_error), n - 1)),
    )


def _worst(env: VecEnv, result: WelfareEvaluation, episodes: Episodes, known: np.ndarray | None) -> list[WorstOff]:
    agents = worst_off(result, N_WORST)
    bounds = own_policy_bounds(env, agents)
    found = []
    for row, agent in enumerate(agents):
        utility, error = own_utility(result, agent)
        best, there, error_there = best_representative(result, agent, others=True) or (None, np.nan, np.nan)
        half, half_there = half_width(np.array([error, error_there]), result.n_eval_episodes - 1)
        found.append(
            WorstOff(
                agent=int(agent),
                representative=int(result.assignment[agent]),
                utility=utility,
                half_width=float(half),
                elsewhere=best,
                utility_elsewhere=there,
                half_width_elsewhere=float(half_there),
                # Where episodes are equal, the mean may differ from them by rounding
                gain_seen=max(0.0, float(episodes.best[agent] - utility)),
                gain_given=np.nan if known is None else float(known[agent] - utility),
                gain_bound=np.nan if bounds is None else float(bounds[row] - utility),
            )
        )
    return found


def _stressed(
    model: RepresentedOnPolicyAlgorithm, env: VecEnv, plan: Plan, case: StressCase, calm: WelfareEvaluation
) -> StressFindings:
    if case.apply is None:
        return StressFindings(case.name, case.why_not)
    try:
        with case.apply(env) as changed:
            result = _evaluate(model, changed, plan, (plan.seeds[0] + case.seed_shift) % MAX_SEED)
    except Exception as reason:  # the user's code may raise anything; what was found before should not be lost with it
        return StressFindings(case.name, f"it failed: {type(reason).__name__}: {reason}")
    return StressFindings(
        name=case.name,
        welfare=result.social_welfare,
        standard_error=result.standard_error,
        change=result.social_welfare - calm.social_welfare,
        # As of independent episodes; where both share their start states, the true error is smaller as a rule
        change_error=float(np.hypot(result.standard_error, calm.standard_error)),
        worst_agent=result.worst_agent,
        worst_utility=result.worst_utility,
        worst_change=result.worst_utility - calm.worst_utility,
        worst_change_error=float(np.hypot(result.worst_error, calm.worst_error)),
    )
