"""Files of small sweeps, and the command on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result

from sb3_rmdp import cli

GRID = "rmdp/ResourceGathering-v0"
EVENTFUL = "tests.sweep.probes:Eventful-v0"
SMALL: dict[str, Any] = dict(n_steps=32, batch_size=32, n_epochs=2)


def write_config(folder: Path, *events: str, **keys: Any) -> Path:
    """
    :param folder: for the file, and for files of events
    :param events: one environment each, with that event in its trainings
    :param keys: of the file
    """
    environments = [dict(id=EVENTFUL, label=event, kwargs=dict(event=event, folder=str(folder))) for event in events]
    least = dict(environments=environments, k=[2], transitions_per_policy=64, n_eval_episodes=2, hyperparams=SMALL)
    path = folder / "own.yml"
    path.write_text(yaml.safe_dump({**least, **keys}))
    return path


def invoke(*arguments: object) -> Result:
    """A sweep within this process: one that does not come to Ray."""
    return CliRunner().invoke(cli.main, ["sweep", *map(str, arguments)])


def assert_bad_input(result: Result, *texts: str) -> None:
    """
    :param result: of a sweep that should have complained
    :param texts: what its line has to say
    """
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert all(text in line for text in texts), line
    assert "Traceback" not in result.output and result.stdout == ""
