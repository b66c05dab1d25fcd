"""The commands ``sb3-rmdp export`` and ``sb3-rmdp verify``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from sb3_rmdp.commands import bad_input, check_is_file, trusted_option


@click.command(short_help="Representatives of a saved model as stock PPO zips and ONNX, with a manifest.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help='Where to.  [default: beside MODEL, with "-export" in the place of ".zip"]',
)
@click.option("--onnx/--no-onnx", default=True, show_default=True, help="Write ONNX files as well as zip files.")
@click.option(
    "--vec-normalize",
    "statistics",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Statistics that VecNormalize saved, to fold in. Found by themselves in a run folder.",
)
@click.option("--force", is_flag=True, help="Replace an earlier export in FOLDER.")
@click.option(
    "--sign",
    "private_key",
    metavar="KEY.pem",
    type=click.Path(path_type=Path),
    help="Sign the manifest with this ed25519 key: openssl genpkey -algorithm ed25519 -out KEY.pem",
)
@trusted_option
def export(
    model: Path,
    out: Path | None,
    onnx: bool,
    statistics: Path | None,
    force: bool,
    private_key: Path | None,
    trusted: bool,
) -> None:
    """
    Write every representative of MODEL, a zip file, into FOLDER, to be run where sb3_rmdp is not installed.

    FOLDER gets representative_0.zip, which stable_baselines3.PPO.load opens, representative_0.onnx for onnxruntime, and so on,
    and manifest.json: who is served by which, spaces, and hashes of all files. Normalisation of observations is folded in:
    raw observations go in. Every file is tried on random observations, and FOLDER appears only if all act like the model.

    \b
      sb3-rmdp export model.zip
      sb3-rmdp export model.zip -o service --no-onnx
      sb3-rmdp export logs/rppo/rmdp-ResourceGathering-v0_1/best_model.zip -o service --force
      sb3-rmdp export model.zip -o service --vec-normalize vecnormalize.pkl
      sb3-rmdp export model.zip -o service --sign key.pem
      sb3-rmdp verify service
    """
    with progress_bar() as on_written, bad_input():
        from sb3_rmdp.export import export as write_export

        check_is_file(model)
        if out is not None and not out.name:
            raise ValueError(f"--out '{out}' names no folder")
        folder = out or model.with_name(f"{model.name.removesuffix('.zip')}-export")
        manifest = write_export(model, folder, onnx, statistics, force, on_written, private_key, trusted)
    print_manifest(manifest)
    click.echo(f"Wrote {folder}; the manifest's hash is {manifest['sha256']}")
    if private_key is not None:
        click.echo(f"Signed with the key {manifest['signed_by']}")


@click.command(short_help="Whether an export still is what was written, byte by byte.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--sha256",
    "digest",
    metavar="HASH",
    help="Hash of the manifest that it must have: its 64 digits, or at least the first 16.",
)
@click.option(
    "--public-key",
    metavar="KEY.pem",
    type=click.Path(path_type=Path),
    help="The manifest must be signed with this ed25519 key: openssl pkey -in KEY.pem -pubout -out PUBLIC.pem",
)
def verify(folder: Path, digest: str | None, public_key: Path | None) -> None:
    """
    Compare every byte in FOLDER, an export, with its manifest. Exit status 2 if anything was changed, is missing or was
    added. Nothing in FOLDER is run.

    Hashes find what was changed by accident or without care. Who can rewrite files can rewrite the manifest as well: give the
    public key that it must be signed with, or note its hash, which export prints, and give it with --sha256, to find this too.

    \b
      sb3-rmdp verify service
      sb3-rmdp verify service --public-key public.pem
      sb3-rmdp verify service --sha256 5e9d71a4c3f0b8269d04a7e6c51f3b72
    """
    with bad_input():
        from sb3_rmdp.export import verify as verify_export

        manifest = verify_export(folder, digest, public_key)
    print_manifest(manifest)
    click.echo(f"{folder} is what was written; the manifest's hash is {manifest['sha256']}")
    signed_by = manifest.get("signed_by")
    if public_key is not None:
        click.echo(f"It is signed with {public_key}")
    elif signed_by is not None:
        click.echo(f"It is signed with the key {signed_by}; give --public-key to see that this is the right one")


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, where that is a terminal; what it gives moves it."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("representatives", total=None)

        def move(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        yield move


def print_manifest(manifest: dict[str, Any]) -> None:
    """
    :param manifest: of an export
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    check = manifest["check"]
    table = Table(box=SIMPLE_HEAD)
    table.add_column("representative", no_wrap=True)
    table.add_column("agents", justify="right")
    table.add_column("file", no_wrap=True)
    for column in ("size", "difference"):
        table.add_column(column, justify="right", no_wrap=True)
    table.caption = f"difference: the largest of actions from the model's, on {check['observations']} random observations"
    for row in manifest["representatives"]:
        cells = [str(row["index"]), str(row["n_agents"])]
        for kind, entry in row["files"].items():
            size = f"{entry['bytes'] / 1000:.1f} kB"
            table.add_row(*cells, entry["name"], size, f"{row['largest_difference'][kind]:.1e}")
            cells = ["", ""]
    console.print(table)
    folded = [f"{stage['by']}{' of ' + stage['key'] if stage['key'] else ''}" for stage in manifest["normalization"]]
    console.print(f"Normalisation folded in: {', '.join(folded) or 'there is none'}", soft_wrap=True)
    if manifest["values"] is None:
        console.print(
            "Note: zip files give the value 0 for every observation. Values of agents need their weights on reward features, "
            "which come with the environment; actions do not.",
            soft_wrap=True,
        )
