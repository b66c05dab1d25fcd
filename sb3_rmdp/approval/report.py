"""From a model to its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp.approval.behaviour import Behaviour, watch
from sb3_rmdp.approval.findings import Findings, collect_findings
from sb3_rmdp.approval.plan import make_plan
from sb3_rmdp.approval.stress import Wrapper
from sb3_rmdp.common.evaluation import as_vec_env
from sb3_rmdp.common.files import model_file
from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm
from sb3_rmdp.common.population import check_no_reward_normalization, check_same_population, population_of
from sb3_rmdp.common.random_numbers import apart_from_training
from sb3_rmdp.common.report import save_text, to_json
from sb3_rmdp.common.whole_files import check_target
from sb3_rmdp.represented_ppo import RepresentedPPO
from sb3_rmdp.vec_env import represented_vec_env


@apart_from_training
def write_report(
    model: RepresentedOnPolicyAlgorithm | str | Path,
    env: GymEnv | str,
    path: str | Path,
    n_eval_episodes: int = 20,
    seeds: int | Sequence[int] = 3,
    deterministic: bool = True,
    stress: bool | Mapping[str, Wrapper] = True,
    frames: int = 6,
    title: str | None = None,
    own_policy_utilities: Sequence[float] | np.ndarray | None = None,
    json_path: str | Path | None = None,
    saved_as: str | Path | None = None,
    date: datetime | None = None,
    max_episode_steps: int | None = None,
    trusted: bool = False,
) -> Findings:
    """
    Evaluate a model and write one HTML file about it that needs nothing else: no network, no folder beside it.

    Nothing is written before everything is known. Pictures need the extra "plots".

    :param model: the model, or its zip file
    :param env: an environment with its agents, a vec env, or a gymnasium id
    :param path: of the report; ".html" is added where there is no suffix, missing folders are made
    :param n_eval_episodes: episodes per representative, seed and stress case, at least 1
    :param seeds: how many evaluations, with the seeds 0, 1, ...; or their seeds
    :param deterministic: take the likeliest actions, or sample them as in training
    :param stress: whether to evaluate under stress; or more conditions beside those that there are, by name: functions that
        take an environment and give it back in a wrapper, with the same spaces
    :param frames: pictures of an episode of each representative at most, 0 for none
    :param title: of the page
    :param own_policy_utilities: what agents are known to have with a policy of their own, (n_agents,), nan where unknown
    :param json_path: write all numbers to this file as well
    :param saved_as: file that ``model`` was loaded from, whose hash the report is to tell; not needed if ``model`` is a file
    :param date: of the report, now by default
    :param max_episode_steps: steps that an episode may take, as for :func:`evaluate_welfare`
    :param trusted: whether code in the zip file of the model may run, see :meth:`RepresentedPPO.load`
    :return: the numbers
    :raises FileNotFoundError: if there is no such model
    :raises ValueError: if the model is broken, does not fit its environment, or an argument is out of its range
    :raises OSError: if the report cannot be written there
    :raises ImportError: if matplotlib or Pillow are missing
    """
    page_file = check_target(path, ".html")
    json_file = None if json_path is None else check_target(json_path, ".json")
    write_page = load_page()
    if not isinstance(model, RepresentedOnPolicyAlgorithm):
        saved_as = model_file(model)
        model = RepresentedPPO.load(saved_as, trusted=trusted)
    venv = as_vec_env(represented_vec_env(env, model.k) if isinstance(env, str) else env)
    try:
        check_no_reward_normalization(venv)
        check_same_population(model.population, population_of(venv))
        model.check_vec_normalize(venv)
        given = (n_eval_episodes, seeds, deterministic, stress, own_policy_utilities, max_episode_steps)
        plan = make_plan(venv, model.n_agents, *given)
        findings = collect_findings(model, venv, plan, saved_as, date)
        behaviours = [watch(model, venv, j, deterministic, plan.seeds[0], frames) for j in range(model.k)]
        page = write_page(findings, behaviours, venv, title)
    finally:
        if isinstance(env, str):
            venv.close()
    if json_file is not None:
        save_text(to_json(findings.as_dict()), json_file, ".json")
    save_text(page, page_file, ".html")
    return findings


def load_page() -> Callable[[Findings, Sequence[Behaviour], VecEnv, str | None], str]:
    """
    :return: ``write_page``, which draws and therefore needs an extra
    :raises ImportError: if that is not installed
    """
    try:
        from sb3_rmdp.approval.page import write_page
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("matplotlib", "PIL"):
            raise
        raise ImportError(f'reports cannot be drawn without {error.name}: pip install "sb3_rmdp[plots]"') from error
    return write_page
