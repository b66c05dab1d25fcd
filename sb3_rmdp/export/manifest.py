"""The manifest of an export: what is in the folder, and whether it still is what was written."""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from sb3_rmdp.export.placing import leftovers
from sb3_rmdp.export.schema import check_manifest
from sb3_rmdp.export.signing import SIGNATURE, check_signature

NAME = "manifest.json"

#: Says what kind of JSON file it is, and in which layout
FORMAT, SCHEMA = "sb3_rmdp export", 1

#: A list of numbers or names, which stands in one line
LIST = re.compile(r"\[\n[^][{}\n]*(,\n[^][{}\n]*)*\n *\]")

#: Key of the hash of all other keys
DIGEST = "sha256"

#: Digits of it that must be known at least, 64 bits, and what they are
FEWEST = 16
BEGINNING = re.compile(rf"[0-9a-fA-F]{{{FEWEST},64}}")

#: Bytes of a manifest at most
LARGEST = 2**28


def sha256(content: bytes) -> str:
    """
    >>> sha256(b"")[:16]
    'e3b0c44298fc1c14'

    :param content: bytes of a file
    :return: its hash, in hexadecimal digits
    """
    return hashlib.sha256(content).hexdigest()


def file_entry(name: str, content: bytes) -> dict[str, Any]:
    """
    :param name: of a file in the folder
    :param content: what is in it
    :return: what the manifest tells of it
    """
    return {"name": name, "bytes": len(content), "sha256": sha256(content)}


def to_text(content: dict[str, Any]) -> str:
    """
    :param content: of a manifest, with or without its hash
    :return: the one text that this manifest has, with its hash
    :raises ValueError: if it holds what JSON does not know
    """
    content = {"format": FORMAT, "schema": SCHEMA, **{key: value for key, value in content.items() if key != DIGEST}}
    compact = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    text = json.dumps({**content, DIGEST: sha256(compact.encode())}, indent=2, allow_nan=False) + "\n"
    return LIST.sub(lambda found: f"[{' '.join(line.strip() for line in found.group().splitlines()[1:-1])}]", text)


def listed_files(content: dict[str, Any]) -> list[dict[str, Any]]:
    """
    :param content: of a manifest
    :return: its entries of files
    """
    files = [entry for row in content["representatives"] for entry in row["files"].values()]
    table = content["assignment"]["file"]
    return files if table is None else [*files, table]


def verify(folder: str | Path, digest: str | None = None, public_key: str | Path | None = None) -> dict[str, Any]:
    """
    Compare a folder with its manifest: every byte of every file, the manifest included; and its signature, if it has one.

    A hash finds what was changed by accident or without care. Who can rewrite files can rewrite the manifest as well: give the
    public key that it must be signed with, or keep its hash elsewhere and pass it, to find this too. Nothing in the folder is
    run.

    :param folder: written by :func:`~sb3_rmdp.export.export`
    :param digest: the manifest's hash, as it was noted when it was written: all 64 digits, or at least 16 of its beginning
    :param public_key: PEM file of the ed25519 key that it must be signed with; by default a signature may be missing, or of
        any key
    :return: content of the manifest
    :raises FileNotFoundError: if there is no such folder or key
    :raises ValueError: if something was changed, is missing or was added, the manifest makes no sense, or it is not signed
        with this key; names it
    :raises ImportError: if it is signed, or a key is given, and cryptography is not installed
    """
    folder = Path(folder)
    content = read_manifest(folder, digest, public_key)
    names = {NAME} if content.get("signed_by") is None else {NAME, SIGNATURE}
    for entry in listed_files(content):
        read_listed(folder, entry)
        names.add(entry["name"])
    read_assignment(folder, content)
    added = sorted(path.name for path in folder.iterdir() if path.name not in names)
    if added:
        raise ValueError(f"{folder / added[0]} was added to the export: its manifest does not list it")
    return content


def read_manifest(folder: Path, digest: str | None = None, public_key: str | Path | None = None) -> dict[str, Any]:
    """
    :param folder: of an export
    :param digest: see :func:`verify`
    :param public_key: see :func:`verify`
    :return: content of the manifest, which is what it was when it was written
    :raises FileNotFoundError: if there is no such folder
    :raises ValueError: if there is no manifest, it was changed, or makes no sense
    """
    if digest is not None:
        check_digest(digest)
    path = folder / NAME
    if not folder.is_dir():
        kept = leftovers(folder)
        hint = f"; an earlier export that was being replaced is {kept[-1]}, and export puts it back" if kept else ""
        raise FileNotFoundError(f"there is no folder {folder}{hint}")
    if not path.is_file() or path.is_symlink():
        raise ValueError(f"{path} is missing: {folder} is no export, or not a whole one")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} was changed: no manifest is larger than {LARGEST} bytes")
    signed = path.read_bytes()
    try:
        text = signed.decode()
        content = json.loads(text)
        known = content.get("format") == FORMAT
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} was changed: it is no manifest any more ({error})") from error
    if not known:
        raise ValueError(f"{path} was changed, or is no manifest of an export: it does not say {FORMAT!r}")
    if content.get("schema") != SCHEMA:
        raise ValueError(
            f"{path} has schema {content.get('schema')!r}, and this version of sb3_rmdp reads {SCHEMA}: it was changed, or "
            "written by another version; read it with that one, or export anew"
        )
    # A manifest has one text only: a byte that means nothing counts as well
    if not _is_own_text(content, text):
        raise ValueError(f"{path} was changed: its content does not have the hash that it names")
    if digest is not None and not content[DIGEST].startswith(digest.lower()):
        raise ValueError(
            f"{path} has the hash {content[DIGEST]}, not {digest}: the export was written anew, or this is another one"
        )
    try:
        check_manifest(content)
    except ValueError as error:
        raise ValueError(f"{path} makes no sense: {error}. It was changed after it was written; export anew") from error
    check_signature(folder, signed, content.get("signed_by"), public_key)
    return content


def check_digest(digest: str) -> None:
    """
    :param digest: beginning of a hash
    :raises ValueError: if that is too short to tell one manifest from another that somebody has made to look alike
    """
    if not BEGINNING.fullmatch(digest):
        raise ValueError(
            f"{digest!r} is no hash of a manifest: give all of its 64 hexadecimal digits, or at least the first {FEWEST}; "
            "fewer can be forged"
        )


def _is_own_text(content: dict[str, Any], text: str) -> bool:
    try:
        return to_text(content) == text
    except (ValueError, RecursionError):  # a number that JSON does not know
        return False


def read_listed(folder: Path, entry: dict[str, Any]) -> bytes:
    """
    :param folder: of an export
    :param entry: what its manifest tells of a file
    :return: the file's content, which is what it was when it was written
    :raises ValueError: if it is missing or was changed
    """
    path = folder / entry["name"]
    if Path(entry["name"]).name != entry["name"]:
        raise ValueError(f"{folder / NAME} was changed: {entry['name']!r} is no name of a file in the folder")
    if path.is_symlink():
        raise ValueError(f"{path} is a link: an export holds its files itself")
    if not path.is_file():
        raise ValueError(f"{path} is missing, although the manifest lists it")
    # Of a file that has grown, not more is read than there should be
    with path.open("rb") as file:
        content = file.read(entry["bytes"] + 1) if path.stat().st_size == entry["bytes"] else b""
    if len(content) != entry["bytes"] or sha256(content) != entry["sha256"]:
        raise ValueError(f"{path} was changed: it does not have the hash that the manifest names")
    return content


def read_assignment(folder: Path, manifest: dict[str, Any]) -> np.ndarray:
    """
    :param folder: of an export
    :param manifest: content of its manifest
    :return: representative of each agent, int64 (n_agents,)
    :raises ValueError: if the file of who is served by whom does not agree with the manifest
    """
    rows, n_agents = manifest["representatives"], manifest["population"]["n_agents"]
    entry = manifest["assignment"]["file"]
    if entry is None:
        assignment = np.empty(n_agents, dtype=np.int64)  # filled, since each agent is listed once
        for row in rows:
            assignment[row["agents"]] = row["index"]
        return assignment
    path = folder / entry["name"]
    try:
        table = np.load(io.BytesIO(read_listed(folder, entry)), allow_pickle=False)
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path} holds no array ({error})") from error
    except Exception as error:  # numpy raises many kinds for what is no array
        raise ValueError(f"{path} holds no array ({error})") from error
    if not isinstance(table, np.ndarray) or table.shape != (n_agents,) or table.dtype.kind not in "iu":
        raise ValueError(f"{path} makes no sense: it does not hold one whole number for each of {n_agents} agents")
    known = table.min() >= 0 and table.max() < len(rows)
    if not known or np.bincount(table.astype(np.int64), minlength=len(rows)).tolist() != [row["n_agents"] for row in rows]:
        raise ValueError(f"{path} makes no sense: representatives serve other numbers of agents in it than in {NAME}")
    return table.astype(np.int64)
