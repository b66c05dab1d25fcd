"""The command ``sb3-rmdp assign``. What costs time to import is imported when it runs: --help should not wait."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from sb3_rmdp.commands import (
    COPIES,
    MOST,
    bad_input,
    check_outputs,
    load_model,
    load_with_env,
    naming,
    parse_env_kwargs,
    trusted_option,
    with_progress,
    with_suffix,
)

if TYPE_CHECKING:
    import numpy as np

    from sb3_rmdp import RepresentedPPO
    from sb3_rmdp.service import EvaluationEpisodes, NewUsers
    from sb3_rmdp.service.assign import Users

#: Episodes of each representative that are recorded if nothing else is said
RECORDED = 50

FILE = click.Path(dir_okay=False, allow_dash=True, path_type=Path)
EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(short_help="The best representative of users who were not in training, and how sure that is.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--episodes",
    "episodes_file",
    required=True,
    metavar="FILE.npz",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Recorded episodes. Recorded first, and kept there, if there is no such file.",
)
@click.option("--weights", metavar="FILE", type=EXISTING, help="A row per user, .npy or .csv: weights on reward features.")
@click.option("--reward", metavar="MODULE:FUNCTION", help="Reward of one user, a function of (obs, action, next_obs, info).")
@click.option("--scores", metavar="FILE.csv", type=EXISTING, help="Columns representative, episode, score: of one user.")
@click.option("--vectorized", is_flag=True, help="The function takes all steps of an episode at once.")
@click.option("--confidence", type=float, default=0.95, show_default=True, help="Level of intervals and choices.")
@click.option("--best-possible", type=float, help="Best possible return.  [default: the best of all recorded episodes]")
@click.option("--env", "env_id", metavar="ID", help="To record in: id, or module:id. Not needed in a run folder of RL Zoo.")
@click.option(
    "--record", type=click.IntRange(2, MOST), help=f"Episodes of each representative to record.  [default: {RECORDED}]"
)
@click.option("--deterministic/--stochastic", default=None, help="Recorded actions.  [default: deterministic, the likeliest]")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the recording.")
@click.option("--n-envs", type=COPIES, help="Copies of the environment.  [default: one per representative]")
@click.option(
    "--env-kwargs", multiple=True, metavar="NAME:VALUE", callback=parse_env_kwargs, help="Of the environment; may be repeated."
)
@click.option("--vec-normalize", "statistics", type=EXISTING, help="Statistics that VecNormalize saved, to record with.")
@click.option("--json", "json_file", type=FILE, help='Write everything to this file, or to stdout for "-".')
@click.option("--csv", "csv_file", type=FILE, help='Write a row per user to this file, or to stdout for "-".')
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw returns, or regrets of many users.")
@click.option("--device", default="auto", show_default=True, help='"cpu", "cuda", or "auto"; to record on.')
@trusted_option
def assign(
    model: Path,
    episodes_file: Path,
    weights: Path | None,
    reward: str | None,
    scores: Path | None,
    vectorized: bool,
    confidence: float,
    best_possible: float | None,
    env_id: str | None,
    record: int | None,
    deterministic: bool | None,
    seed: int,
    n_envs: int | None,
    env_kwargs: dict[str, Any],
    statistics: Path | None,
    json_file: Path | None,
    csv_file: Path | None,
    plot: Path | None,
    device: str,
    trusted: bool,
) -> None:
    """
    Find the representative of MODEL, a zip file, that serves new users best: its expected return with a confidence interval,
    and the regret against the best possible. Nothing is trained. Episodes of all representatives are recorded once and scored
    by every user who comes.

    A user comes with weights (how much each reward feature counts; the weight of each agent known in training, if rewards are
    not factored), with a reward function, or with scores of a few recorded episodes.

    \b
      sb3-rmdp assign model.zip --episodes episodes.npz --env my_module:Robot-v0 --record 100 --weights users.csv
      sb3-rmdp assign model.zip --episodes episodes.npz --weights users.npy --csv served.csv --plot regret.png
      sb3-rmdp assign model.zip --episodes episodes.npz --reward my_rewards:hurried --best-possible 100
      sb3-rmdp assign model.zip --episodes episodes.npz --scores my_scores.csv --confidence 0.9 --json -

    \b
    A file of scores; episodes are numbered from 0 within their representative:
      representative,episode,score
      0,3,71.5
      2,0,12
    """
    from sb3_rmdp.service.reading import read_users

    with bad_input():
        check_numbers(confidence, best_possible)
        json_file, csv_file = with_suffix(json_file, ".json"), with_suffix(csv_file, ".csv")
        episodes_file = cast(Path, with_suffix(episodes_file, ".npz"))
        outputs = {"--json": json_file, "--csv": csv_file, "--plot": plot}
        if not episodes_file.exists():
            outputs["--episodes"] = episodes_file
        check_outputs(outputs, [model, weights, scores, statistics, episodes_file if episodes_file.exists() else None])
        check_plot(plot)
        users = read_users(weights, reward, scores)
    if episodes_file.exists():
        with bad_input():
            loaded = load_model(model, trusted=trusted)
            episodes = load_episodes(episodes_file, env_id, record, deterministic)
    else:
        loaded, episodes = record_first(
            model,
            episodes_file,
            users,
            env_id,
            env_kwargs,
            n_envs,
            seed,
            statistics,
            device,
            record or RECORDED,
            deterministic,
            trusted,
        )
    with bad_input():
        result = loaded.assign(users, episodes, confidence, best_possible, vectorized)
    facts = {"model": str(model), "episodes": str(episodes_file), "env": episodes.origin.env_id}
    write(result, facts, json_file, csv_file, plot)


def check_numbers(confidence: float, best_possible: float | None) -> None:
    """
    :param confidence: a level
    :param best_possible: a return
    :raises ValueError: if they make no sense
    """
    from math import isfinite

    from sb3_rmdp.service.assign import check_confidence

    check_confidence(confidence)
    if best_possible is not None and not isfinite(best_possible):
        raise ValueError(f"--best-possible {best_possible}: give a finite number")


def check_plot(plot: Path | None) -> None:
    """
    :param plot: where a picture is to go
    :raises ValueError: if it cannot be drawn
    """
    from sb3_rmdp.service.report import check_picture

    if plot is not None:
        check_picture(plot)


def load_episodes(path: Path, env_id: str | None, record: int | None, deterministic: bool | None) -> EvaluationEpisodes:
    """
    :param path: file that there is
    :param env_id: what the environment is said to be
    :param record: how many episodes were asked for
    :param deterministic: which actions were asked for
    :return: the episodes
    :raises ValueError: if these are not what was asked for
    """
    from sb3_rmdp.service import EvaluationEpisodes

    with naming(path, "recorded episodes"):
        episodes = EvaluationEpisodes.load(path)
    origin = episodes.origin
    mend = "leave the option out, or give --episodes a new file"
    if env_id is not None and origin.env_id is not None and env_id.rpartition(":")[2] != origin.env_id:
        raise ValueError(f"--env {env_id}: {path} was recorded in {origin.env_id}; {mend}")
    if record not in (None, episodes.n_episodes):
        raise ValueError(f"--record {record}: {path} has {episodes.n_episodes} episodes of each representative; {mend}")
    if deterministic not in (None, origin.deterministic):
        kind = "deterministic" if origin.deterministic else "stochastic"
        raise ValueError(f"{path} was recorded with {kind} actions; {mend}")
    return episodes


def record_first(
    model: Path,
    path: Path,
    users: Users,
    env_id: str | None,
    env_kwargs: dict[str, Any],
    n_envs: int | None,
    seed: int,
    statistics: Path | None,
    device: str,
    n_episodes: int,
    deterministic: bool | None,
    trusted: bool,
) -> tuple[RepresentedPPO, EvaluationEpisodes]:
    """
    :param model: file of the model
    :param path: where episodes are to be kept
    :param users: what new users come with, which is looked at before time is spent
    :param env_id: for this and the rest see the options
    :param n_episodes: of each representative
    :return: the model, and its episodes
    """
    from sb3_rmdp.service import Scores, record_episodes
    from sb3_rmdp.service.assign import checked_weights
    from sb3_rmdp.service.rewards import takes_info

    with bad_input():
        if isinstance(users, Scores):
            raise ValueError(f"there is no file {path} with the episodes that were scored: record episodes first")
        if callable(users):
            takes_info(users)
        try:
            loaded, env, _ = load_with_env(model, env_id, env_kwargs, n_envs, seed, statistics, device, trusted)
        except ValueError as error:
            raise ValueError(f"there is no file {path}, and none can be recorded: {error}") from error
        try:
            if not callable(users):
                checked_weights(cast("np.ndarray", users), loaded.n_features or loaded.n_agents, loaded.n_features is not None)
            with with_progress(env, loaded.k * n_episodes) as watched:
                episodes = record_episodes(loaded, watched, n_episodes, deterministic is not False, seed)
        finally:
            env.close()
        path = episodes.save(path)
    click.echo(f"Wrote {path}: {episodes}", err=True)
    return loaded, episodes


def write(result: NewUsers, facts: dict[str, Any], json_file: Path | None, csv_file: Path | None, plot: Path | None) -> None:
    """
    :param result: who serves new users
    :param facts: what else goes into JSON
    :param json_file: file, "-" for stdout
    :param csv_file: file, "-" for stdout
    :param plot: file of a picture
    """
    from sb3_rmdp.common.report import save_text, to_json
    from sb3_rmdp.service.report import as_dict, print_new_users, save_picture, to_csv

    if "-" not in (str(json_file), str(csv_file)):
        print_new_users(result)
    texts = {
        ".json": (json_file, lambda: to_json({**facts, **as_dict(result)})),
        ".csv": (csv_file, lambda: to_csv(result)),
    }
    for suffix, (path, text) in texts.items():
        if path is None:
            continue
        if str(path) == "-":
            click.echo(text(), nl=False)
            continue
        with bad_input():
            path = save_text(text(), path, suffix)
        click.echo(f"Wrote {path}", err=True)
    if plot is not None:
        with bad_input():
            save_picture(result, plot)
        click.echo(f"Wrote {plot}", err=True)
