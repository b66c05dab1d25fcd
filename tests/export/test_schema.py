"""A manifest that somebody has written anew, with the right hash, is read only if it makes sense; nothing in it runs code."""

from __future__ import annotations

import base64
import copy as copies
import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_rmdp.export import export, load_exported, verify, writing
from sb3_rmdp.export.manifest import file_entry, to_text
from sb3_rmdp.export.schema import check_manifest
from tests.export.models import CASES

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with ONNX, k = 3, n = 4."""
    folder = tmp_path_factory.mktemp("exported") / "export"
    export(CASES["box"](), folder)
    return folder


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """A copy of it, to be tampered with."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def rewrite(folder: Path, change: Callable[[Manifest], None]) -> None:
    """
    :param folder: an export, whose manifest gets the hash that it must have
    :param change: changes it
    """
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(to_text(manifest))


def put(path: str, value: Any) -> Callable[[Manifest], None]:
    """
    :param path: keys and indices with points between them
    :param value: what is put there
    :return: does it
    """

    def change(manifest: Manifest) -> None:
        *inner, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        at: Any = manifest
        for part in inner:
            at = at[part]
        at[last] = value

    return change


ONNX = "representatives.0.files.onnx"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("population.n_agents", 10**6, "agent 4 is served by no representative"),
        ("population.n_agents", 10**12, "population.n_agents is 1000000000000"),
        ("population.n_agents", 4.0, "population.n_agents is 4.0"),
        ("population.n_agents", True, "population.n_agents is True"),
        ("model.k", 2, r"3 are listed, and model\.k is 2"),
        ("representatives", [], "0 are listed"),
        ("representatives", {}, "not a list"),
        ("representatives.1.index", 0, r"representatives\[1\]\.index is 0, not 1"),
        ("representatives.1.index", 1.5, r"representatives\[1\]\.index is 1\.5"),
        ("representatives.0.agents", [-1, 2, 3], "holds -1: agents are numbered 0 to 3"),
        ("representatives.0.agents", [1, 2, 4], "holds 4: agents are numbered 0 to 3"),
        ("representatives.0.agents", [0, 1, 2], "agent 0 is served by representatives 0 and 2"),
        ("representatives.0.agents", [1, 2, 2], "agent 2 is served by representatives 0 and 0"),
        ("representatives.0.agents", [1, 2], "n_agents is 3, and 2 are listed"),
        ("representatives.0.agents", ["1", 2, 3], r"agents\[0\] is '1'"),
        ("representatives.0.agents", None, "agents is null"),
        ("representatives.0", None, "not an object"),
        (f"{ONNX}.bytes", -1, r"bytes is -1, not a whole number from 0"),
        (f"{ONNX}.bytes", "12", "bytes is '12'"),
        (f"{ONNX}.sha256", "0" * 63, "not 64 hexadecimal digits"),
        (f"{ONNX}.name", "../representative_0.onnx", r"name is '\.\./representative_0\.onnx'"),
        (f"{ONNX}.name", "representative_1.onnx", "not 'representative_0.onnx'"),
        (f"{ONNX}.name", "/etc/passwd", "not 'representative_0.onnx'"),
        (f"{ONNX}.name", 3, "not a text"),
        ("representatives.0.largest_difference.sb3", "0", "largest_difference.sb3 is '0'"),
        ("observation_space.shape", [10**9, 10**9], "observation_space has the shape"),
        ("observation_space.shape", [-3], "observation_space has the shape"),
        ("observation_space.type", "Text", "observation_space describes no space"),
        ("observation_space.dtype", "object", "observation_space describes no space"),
        ("action_space", {"type": "Discrete", "n": -1, "start": 0}, "action_space describes no space"),
        ("action_space", {"type": "Dict", "spaces": {}}, "action_space"),
        ("action_space", [], "action_space is"),
        ("onnx_inputs", ["other"], "onnx_inputs is"),
        ("onnx_inputs", None, r"files is of \['onnx', 'sb3'\]"),
        ("normalization.0.clip", -1.0, "not a number above 0"),
        ("check.tolerance", 10**400, "check.tolerance"),
        ("assignment.file", {"name": "x.npy", "bytes": 1, "sha256": "0" * 64}, "agents is a list"),
        ("extra", 1, "holds 'extra', which no export writes"),
        ("representatives.0.extra", 1, "which no export writes"),
        ("signed_by", "me", "signed_by is 'me'"),
    ],
)
def test_nonsense_is_refused_and_named(copy: Path, path: str, value: Any, message: str) -> None:
    rewrite(copy, put(path, value))
    for call in (verify, load_exported):
        with pytest.raises(ValueError, match=rf"manifest\.json makes no sense: .*{message}"):
            call(copy)


def test_every_part_that_is_missing_or_of_another_type_is_a_clear_error(copy: Path, exported: Path) -> None:
    """Each place of the manifest in turn: without it, and with values of seven types in it."""
    whole = json.loads((exported / "manifest.json").read_text())
    check_manifest(whole)
    places: list[tuple[Any, ...]] = []

    def walk(value: Any, path: tuple[Any, ...]) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            places.append((*path, key))
            walk(item, (*path, key))

    walk(whole, ())
    refused = 0
    for path in places:
        for value in (None, -1, 1.5, "x", [], {}, [{}], ...):
            changed = copies.deepcopy(whole)
            at: Any = changed
            for part in path[:-1]:
                at = at[part]
            if value is ...:
                del at[path[-1]]
            else:
                at[path[-1]] = value
            try:
                check_manifest(changed)
            except ValueError as error:
                refused += 1
                assert "\n" not in str(error)
    # What is left are texts that say what they like, and nulls where there may be nothing
    assert refused > 0.8 * 8 * len(places)


def test_the_default_is_onnx_or_an_error(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An export whose ONNX files were dropped, and whose zip files run code, does not run it unless that is asked for."""

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("CODE RUN",)

    def drop(manifest: Manifest) -> None:
        manifest["onnx_inputs"] = None
        for row in manifest["representatives"]:
            (copy / row["files"].pop("onnx")["name"]).unlink()
            del row["largest_difference"]["onnx"]
            file = copy / row["files"]["sb3"]["name"]
            with zipfile.ZipFile(file) as archive:
                members: dict[str, Any] = {name: archive.read(name) for name in archive.namelist()}
            data = json.loads(members["data"])
            data["x"] = {":type:": "", ":serialized:": base64.b64encode(pickle.dumps(Evil())).decode()}
            with zipfile.ZipFile(file, "w") as out:
                for name, content in {**members, "data": json.dumps(data)}.items():
                    out.writestr(name, content)
            row["files"]["sb3"] = file_entry(file.name, file.read_bytes())

    rewrite(copy, drop)
    verify(copy)
    with pytest.raises(ValueError, match=r'has files for sb3 only.*backend="sb3" if you trust its origin'):
        load_exported(copy)
    assert "CODE RUN" not in capsys.readouterr().out
    # Asked for in so many words
    load_exported(copy, "sb3").representative(0)
    assert "CODE RUN" in capsys.readouterr().out
    with pytest.raises(ValueError, match="backend='pickle': choose 'onnx' or 'sb3'"):
        load_exported(copy, "pickle")


def test_links_and_files_of_other_sizes_are_refused(copy: Path, tmp_path: Path) -> None:
    file = copy / "representative_0.onnx"
    elsewhere = tmp_path / "elsewhere.onnx"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    with pytest.raises(ValueError, match=r"representative_0\.onnx is a link"):
        verify(copy)
    file.unlink()
    with file.open("wb") as large:  # a hole of a terabyte, which is not read
        os.truncate(large.fileno(), 2**40)
    with pytest.raises(ValueError, match=r"representative_0\.onnx was changed"):
        verify(copy)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ValueError, match=r"representative_0\.onnx is missing"):
        verify(copy)
    file.unlink()
    elsewhere.rename(file)
    (copy / "manifest.json").rename(tmp_path / "manifest.json")
    (copy / "manifest.json").symlink_to(tmp_path / "manifest.json")
    with pytest.raises(ValueError, match=r"manifest\.json is missing"):
        verify(copy)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, '{"format": 1e999}', "\udcff", "{" * 9, '{"a":1,"a":2}'])
def test_texts_that_are_no_manifest(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"manifest\.json was changed"):
        verify(copy)


def test_the_file_of_who_is_served_by_whom_agrees_with_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LISTED", 3)
    folder = tmp_path / "export"
    export(CASES["box"](), folder, onnx=False)
    verify(folder)
    path = folder / "assignment.npy"

    def bytes_of(value: Any) -> bytes:
        file = io.BytesIO()
        np.save(file, value)
        return file.getvalue()

    huge = bytes_of(np.zeros(4, np.uint8)).replace(b"(4,)", b"(9999999999999,)").replace(b" " * 12, b"", 1)
    for content, message in (
        (bytes_of(np.array([2, 0, 0, 2])), "representatives serve other numbers of agents"),
        (bytes_of(np.array([2, 0, 0, 3])), "representatives serve other numbers of agents"),
        (bytes_of(np.array([-1, 0, 0, 0])), "representatives serve other numbers of agents"),
        (bytes_of(np.array([2, 0, 0])), "does not hold one whole number for each of 4"),
        (bytes_of(np.array([2.0, 0, 0, 0])), "does not hold one whole number"),
        (b"nothing", "holds no array"),
        (b"", "holds no array"),
        (huge, "assignment.npy"),
    ):
        path.write_bytes(content)
        rewrite(folder, put("assignment.file", file_entry(path.name, content)))
        with pytest.raises(ValueError, match=message):
            verify(folder)


def test_files_that_cannot_be_opened_are_named(copy: Path) -> None:
    file = copy / "representative_0.onnx"
    file.write_bytes(b"no graph")
    rewrite(copy, put(ONNX, file_entry(file.name, b"no graph")))
    with pytest.raises(ValueError, match=r"representative_0\.onnx cannot be opened"):
        load_exported(copy).representative(0)
