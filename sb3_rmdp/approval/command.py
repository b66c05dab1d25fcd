"""The command ``sb3-rmdp report``. What costs time to import is imported when it runs: --help should not wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sb3_rmdp.commands import (
    COPIES,
    COUNT,
    bad_input,
    check_outputs,
    load_with_env,
    parse_env_kwargs,
    trusted_option,
    with_progress,
    with_suffix,
)

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(short_help="One HTML file about a saved model, for those who approve it.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=FILE, default="report.html", show_default=True, help="The file to write.")
@click.option("--env", "env_id", metavar="ID", help="Environment id, or module:id. Not needed in a run folder of RL Zoo.")
@click.option(
    "--env-kwargs",
    multiple=True,
    metavar="NAME:VALUE",
    callback=parse_env_kwargs,
    help="Argument of the environment; may be repeated. In a run folder, changes that of the training.",
)
@click.option("--episodes", type=COUNT, default=20, show_default=True, help="Per representative, seed and stress case.")
@click.option("--seeds", type=COUNT, default=3, show_default=True, help="Evaluations, with seeds 0, 1, ...")
@click.option(
    "--deterministic/--stochastic", default=True, show_default=True, help="Likeliest actions, or samples as in training."
)
@click.option("--stress/--no-stress", default=True, show_default=True, help="Noise, other start states, other physics.")
@click.option("--frames/--no-frames", default=True, show_default=True, help="Pictures of an episode of each representative.")
@click.option("--title", help="Of the page.  [default: what was trained]")
@click.option("--n-envs", type=COPIES, help="Copies of the environment.  [default: one per representative]")
@click.option(
    "--vec-normalize",
    "statistics",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Statistics that VecNormalize saved. Found by themselves in a run folder.",
)
@click.option("--json", "json_file", type=FILE, help="Write all numbers to this file as well.")
@click.option("--device", default="auto", show_default=True, help='"cpu", "cuda", or "auto".')
@trusted_option
def report(
    model: Path,
    output: Path,
    env_id: str | None,
    env_kwargs: dict[str, Any],
    episodes: int,
    seeds: int,
    deterministic: bool,
    stress: bool,
    frames: bool,
    title: str | None,
    n_envs: int | None,
    statistics: Path | None,
    json_file: Path | None,
    device: str,
    trusted: bool,
) -> None:
    """
    Evaluate MODEL, a zip file, and write one HTML file that a reviewer can read and archive without a network.

    It tells what was trained, by whom every agent is served and how well, what each representative does, who is worst off and
    what these agents might gain, how stable all of this is over seeds, and what becomes of it under stress. In a run folder of
    RL Zoo, the environment is that of the training, unless --env names one. Nothing in MODEL or its folder is run unless you
    say --trusted.

    \b
      sb3-rmdp report model.zip --env rmdp/ResourceGathering-v0 -o report.html
      sb3-rmdp report model.zip --env rmdp/AntVelocity-v0 --env-kwargs n_agents:50 --episodes 5 --json numbers.json
      sb3-rmdp report logs/rppo/rmdp-ResourceGathering-v0_1/best_model.zip --stochastic --seeds 5

    Pictures of MuJoCo's robots need a display, or MUJOCO_GL=egl in the environment. What the numbers mean, and what
    else can be told: page "Reports" of the documentation.
    """

    with bad_input():
        from sb3_rmdp.approval.plan import make_plan
        from sb3_rmdp.approval.report import load_page, write_report

        load_page()
        output, json_file = with_suffix(output, ".html") or output, with_suffix(json_file, ".json")
        check_outputs({"--output": output, "--json": json_file}, [model, statistics])
        loaded, env, _ = load_with_env(model, env_id, env_kwargs, n_envs, 0, statistics, device, trusted)
        plan = make_plan(env, loaded.n_agents, episodes, seeds, deterministic, stress)
    with bad_input(), with_progress(env, plan.n_episodes(loaded.k)) as watched:
        findings = write_report(
            loaded,
            watched,
            output,
            n_eval_episodes=episodes,
            seeds=seeds,
            deterministic=deterministic,
            stress=stress,
            frames=6 if frames else 0,
            title=title,
            json_path=json_file,
            saved_as=model,
        )
    env.close()
    click.echo(f"Wrote {click.format_filename(output)}, {output.stat().st_size / 1000:.0f} kB: {findings.result}")
    if json_file is not None:
        click.echo(f"Wrote {click.format_filename(json_file)}")
