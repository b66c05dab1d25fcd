"""Text that users wrote: read in the encodings that programs write, or refused with the file and the reason."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Encodings by the bytes that a file begins with; the longer ones first, since they begin like shorter ones
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

#: Files that are no text, by the bytes that they begin with
FORMATS = {b"PK\x03\x04": "a zip file, as .xlsx and .npz are", b"\x93NUMPY": "a file of numpy", b"\x1f\x8b": "a gzip file"}


@contextlib.contextmanager
def read_as(path: Path, what: str) -> Iterator[None]:
    """
    While in here, a ``ValueError`` names the file, and what it should have been.

    :param path: the file
    :param what: it should be, e.g. "table of weights"
    """
    try:
        yield
    except RecursionError as error:
        raise ValueError(f"{path} is no {what}: it is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{path} is no {what}: {error}") from error


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[io.TextIOWrapper]:
    r"""
    Open a text file in UTF-8, or in UTF-16 or UTF-32 where its first bytes say so; all ends of lines are ``\n``.

    :param path: the file; a pipe will do
    :return: context of the open file
    :raises ValueError: if it is no text
    :raises OSError: if it cannot be opened
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        raise ValueError(f"it is {'a folder' if stat.S_ISDIR(mode) else 'a device'}; give a file")
    with path.open("rb") as file:
        start = file.peek(6)
        for magic, kind in FORMATS.items():
            if start.startswith(magic):
                raise ValueError(f"it is {kind}; save it as text")
        encoding = next((name for mark, name in MARKS.items() if start.startswith(mark)), "utf-8")
        if encoding == "utf-8" and b"\0" in start[:4]:
            raise ValueError("it begins with zeros, as UTF-16 does without its mark; save it as UTF-8")
        with io.TextIOWrapper(file, encoding) as text:
            try:
                yield text
            except UnicodeDecodeError as error:
                raise ValueError(f"{_undecodable(path, encoding)} no text in {encoding.upper()}; save it as UTF-8") from error


def _undecodable(path: Path, encoding: str) -> str:
    """The line that cannot be decoded, if the file can be read again."""
    if path.is_file():
        content = path.read_bytes()
        try:
            content.decode(encoding)
        except UnicodeDecodeError as error:
            return f"line {len(content[: error.start].decode(encoding, 'replace').splitlines()) or 1} is"
    return "it is"


def read_text(path: Path) -> str:
    """
    :param path: the file
    :return: all of it
    :raises ValueError: if it is no text
    :raises OSError: if it cannot be read
    """
    with open_text(path) as file:
        return file.read()


def read_json(path: Path, what: str) -> Any:
    """
    :param path: the file
    :param what: it should be, e.g. "budget curve"
    :return: what it holds
    :raises ValueError: if it is no JSON, or a key is in it twice
    :raises OSError: if it cannot be read
    """
    with read_as(path, what):
        return json.loads(read_text(path), object_pairs_hook=_mapping)


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = value
    return found
