"""Running RL Zoo's scripts with the algorithms of this package registered in it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

#: RL Zoo's scripts, and what they are for
SCRIPTS = {
    "train": "Train, continue with --resume or begin with a model with -i, or tune with -optimize.",
    "enjoy": "Let a trained model act, and report its social welfare.",
    "record_video": "Record a video of a trained model.",
    "plot_train": "Plot learning curves from the training episodes.",
    "all_plots": "Plot and tabulate the evaluations of several runs.",
    "plot_from_file": "Draw what all_plots has collected, with statistics over runs.",
    "load_from_hub": "Download a model from the Hugging Face hub.",
    "push_to_hub": "Upload a model to the Hugging Face hub.",
}

USAGE = "usage: python -m sb3_rmdp.zoo SCRIPT [OPTIONS], SCRIPT being one of\n\n" + "".join(
    f"  {name:<15} {text}\n" for name, text in SCRIPTS.items()
)


def main(argv: Sequence[str] | None = None) -> None:
    """
    Command line.

    :param argv: name of a script and its options, those of the process by default
    :raises SystemExit: with a message if the script is unknown, or something is wrong with its options
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE + "\nSCRIPT --help lists the options of a script, which are RL Zoo's own.")
        raise SystemExit(0 if arguments else 2)
    try:
        run(arguments[0], arguments[1:])
    except SystemExit as error:
        if not isinstance(error.code, str):
            raise
        print(error.code, file=sys.stderr)
        raise SystemExit(2) from error


def run(script: str, arguments: Sequence[str] = (), **options: Any) -> Path | None:
    """
    Run one of RL Zoo's scripts within this process.

    :param script: one of :data:`SCRIPTS`
    :param arguments: its command line
    :param options: more of it, with underscores for hyphens: ``n_timesteps=1000`` is ``--n-timesteps 1000``, a ``True`` is a
        flag, a list several words, a dictionary several of the form ``name:value``
    :return: folder of the run, after ``train``
    :raises SystemExit: with a message, or with 2 after one, if an option is wrong
    """
    if script not in SCRIPTS:
        print(USAGE, file=sys.stderr)
        raise SystemExit(f"error: unknown script {script!r}")
    if importlib.util.find_spec("rl_zoo3") is None:
        raise SystemExit('error: RL Zoo is not installed: pip install "sb3_rmdp[zoo]"')
    words = [*map(str, arguments), *as_words(options)]
    from sb3_rmdp.zoo.running import run_script  # not before it is known that RL Zoo is there

    return run_script(script, words)


def as_words(options: dict[str, Any]) -> Iterator[str]:
    """
    :param options: options by name, with underscores for hyphens
    :return: words of a command line
    """
    for name, value in options.items():
        if value is None or value is False:
            continue
        yield f"--{name.replace('_', '-')}"
        if isinstance(value, dict):
            yield from (f"{key}:{item!r}" for key, item in value.items())
        elif isinstance(value, (list, tuple)):
            yield from map(str, value)
        elif value is not True:
            yield str(value)
