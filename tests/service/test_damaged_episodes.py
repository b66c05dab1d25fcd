"""Files of episodes that are damaged or forged are refused in a sentence, and take no memory that they do not need."""

from __future__ import annotations

import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_rmdp.service import EvaluationEpisodes
from sb3_rmdp.service.episodes import SCHEMA, Origin, Trajectories

LENGTHS = np.array([[3, 2], [4, 1]])
EPISODES = EvaluationEpisodes(
    np.random.default_rng(0).normal(size=(2, 2, 5)).astype(np.float32),
    LENGTHS,
    Origin("0123456789abcdef", 5, "abc", None, "Room-v0", True, 3),
    trajectories=Trajectories({"": np.arange(14.0)[:, None]}, np.arange(10) % 3, {"speed": np.arange(10.0)}),
)


@pytest.fixture()
def saved(tmp_path: Path) -> Path:
    return EPISODES.save(tmp_path / "episodes.npz")


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def as_npy(array: np.ndarray, **others: Any) -> bytes:
    file = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape, **others}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + array.tobytes()


def test_a_flipped_bit_changes_nothing_or_is_told(saved: Path) -> None:
    whole, loaded = saved.read_bytes(), 0
    for seed in range(400):
        rng, damaged = random.Random(seed), bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        saved.write_bytes(damaged)
        try:
            found = EvaluationEpisodes.load(saved)
        except ValueError as error:
            assert str(saved) in str(error) and "record the episodes anew" in str(error)
        else:
            loaded += 1
            assert np.array_equal(found.returns, EPISODES.returns) and np.array_equal(found.lengths, LENGTHS)
    assert loaded < 300


def test_what_is_not_known_is_not_read(saved: Path) -> None:
    """Such as a bomb, of which a few bytes become gigabytes, and pickles."""
    with zipfile.ZipFile(saved, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"nothing that could be read")
        archive.writestr("notes.txt", b"a" * 1000)
    assert EvaluationEpisodes.load(saved).origin == EPISODES.origin


def test_arrays_are_as_long_as_they_say_before_they_are_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("took the memory")

    members = members_of(saved)
    for header in ({"shape": (2, 2, 10**12)}, {"shape": (10**30,)}, {"shape": (-4, 5)}, {"shape": (2, 2, 4)}):
        written(saved, {**members, "returns.npy": as_npy(EPISODES.returns, **header)})
        with monkeypatch.context() as patch:
            patch.setattr(np.lib.format, "read_array", read)
            with pytest.raises(ValueError, match=r"returns is not as long as it says.*record the episodes anew"):
                EvaluationEpisodes.load(saved)


def test_more_than_the_memory_of_the_machine_is_not_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_rmdp.common.npz_files._memory", lambda: 100.0)
    with pytest.raises(ValueError, match=r"episodes.npz.*more than this machine has"):
        EvaluationEpisodes.load(saved)


def facts(**origin: Any) -> bytes:
    kept = {**vars(EPISODES.origin), **origin}
    return as_npy(np.frombuffer(json.dumps({"schema": SCHEMA, "origin": kept}).encode(), np.uint8))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("facts", as_npy(np.frombuffer(b"[" * 100_000, np.uint8)), "nested|recursion"),
        ("facts", as_npy(np.frombuffer(b"[]", np.uint8)), "list"),
        ("facts", facts(policy=3), "policy=3"),
        ("facts", facts(n_agents="5"), "n_agents='5'"),
        ("facts", facts(n_agents=True), "n_agents=True"),
        ("facts", facts(n_agents=0), "n_agents=0"),
        ("facts", facts(n_features=5.0), "n_features=5.0"),
        ("facts", facts(deterministic="no"), "deterministic='no'"),
        ("facts", facts(seed=[]), r"seed=\[\]"),
        ("facts", facts(colour=1), "colour"),
        ("returns", as_npy(EPISODES.returns.astype(np.int64)), "returns are int64"),
        ("returns", as_npy(np.full((2, 2, 5), 1j)), "returns are complex"),
        ("lengths", as_npy(LENGTHS.astype(np.float64)), "lengths float64"),
        ("lengths", as_npy(LENGTHS[None]), "lengths must be"),
        ("lengths", as_npy(np.full((2, 2), 2**62)), "steps that lengths tell of"),
        ("actions", as_npy(np.array(3)), "one per step"),
        ("mean_square", as_npy(np.full((5, 5), np.nan)), "finite"),
        ("returns", b"\x93NUMPY\x03\x00", "returns"),
        ("returns", b"", "magic"),
        ("returns", as_npy(EPISODES.returns)[:-4], "not as long as it says"),
    ],
)
def test_contents_that_make_no_sense_are_refused(name: str, content: bytes, said: str, saved: Path) -> None:
    written(saved, {**members_of(saved), f"{name}.npy": content})
    with pytest.raises(ValueError, match=rf"episodes.npz is no complete file of evaluation episodes \(.*({said})"):
        EvaluationEpisodes.load(saved)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_other_zip_files_are_refused(saved: Path) -> None:
    members = members_of(saved)
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr("returns.npy", members["returns.npy"])
    with pytest.raises(ValueError, match="returns is in it twice"):
        EvaluationEpisodes.load(saved)
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_LZMA) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="compressed in another way"):
        EvaluationEpisodes.load(saved)
