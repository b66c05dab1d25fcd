"""The manifest of an export: what is in the folder, and whether it still is what was written."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

NAME = "manifest.json"

#: Says what kind of JSON file it is, and in which layout
FORMAT, SCHEMA = "sb3_rmdp export", 1

#: A list of numbers or names, which stands in one line
LIST = re.compile(r"\[\n[^][{}\n]*(,\n[^][{}\n]*)*\n *\]")

#: Key of the hash of all other keys
DIGEST = "sha256"


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


def verify(folder: str | Path, digest: str | None = None) -> dict[str, Any]:
    """
    Compare a folder with its manifest: every byte of every file, the manifest included.

    A hash finds what was changed by accident or without care. Who can rewrite files can rewrite the manifest as well: keep its
    hash, or a longer beginning of it, elsewhere, and pass it, to find this too.

    :param folder: written by :func:`~sb3_rmdp.export.export`
    :param digest: the manifest's hash, or at least eight digits of its beginning, as it was noted when it was written
    :return: content of the manifest
    :raises FileNotFoundError: if there is no such folder
    :raises ValueError: if something was changed, is missing or was added; names it
    """
    folder = Path(folder)
    content = read_manifest(folder, digest)
    names = {NAME}
    for entry in listed_files(content):
        read_listed(folder, entry)
        names.add(entry["name"])
    added = sorted(path.name for path in folder.iterdir() if path.name not in names)
    if added:
        raise ValueError(f"{folder / added[0]} was added to the export: its manifest does not list it")
    return content


def read_manifest(folder: Path, digest: str | None = None) -> dict[str, Any]:
    """
    :param folder: of an export
    :param digest: see :func:`verify`
    :return: content of the manifest, which is what it was when it was written
    :raises FileNotFoundError: if there is no such folder
    :raises ValueError: if there is no manifest, or it was changed
    """
    path = folder / NAME
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    if not path.is_file():
        raise ValueError(f"{path} is missing: {folder} is no export, or not a whole one")
    try:
        text = path.read_bytes().decode()
        content = json.loads(text)
        known = content.get("format") == FORMAT
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} was changed: it is no manifest any more ({error})") from error
    if not known:
        raise ValueError(f"{path} was changed, or is no manifest of an export: it does not say {FORMAT!r}")
    if content.get("schema") != SCHEMA:
        raise ValueError(
            f"{path} has schema {content.get('schema')!r}, and this version of sb3_rmdp reads {SCHEMA}: it was changed, or "
            "written by another version; read it with that one, or export anew"
        )
    # A manifest has one text only: a byte that means nothing counts as well
    if to_text(content) != text:
        raise ValueError(f"{path} was changed: its content does not have the hash that it names")
    if digest is not None and (len(digest) < 8 or not content[DIGEST].startswith(digest.lower())):
        raise ValueError(
            f"{path} has the hash {content[DIGEST]}, not {digest}: the export was written anew, or this is another one"
        )
    return content


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
    if not path.is_file():
        raise ValueError(f"{path} is missing, although the manifest lists it")
    content = path.read_bytes()
    if sha256(content) != entry["sha256"]:
        raise ValueError(f"{path} was changed: it does not have the hash that the manifest names")
    return content
