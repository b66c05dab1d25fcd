"""Model files: looked at before they are loaded."""

from __future__ import annotations

import io
import json
import pathlib
import zipfile
from typing import Any

from sb3_rmdp.common.whole_files import save_whole as save_whole


def model_file(path: str | pathlib.Path) -> pathlib.Path:
    """
    :param path: a model, with or without ".zip"
    :return: its file; RL Zoo keeps folders beside models that are named like these without ".zip"
    :raises FileNotFoundError: if there is none
    """
    candidates = (pathlib.Path(path), pathlib.Path(f"{path}.zip"))
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(f"there is no model file {candidates[0]} (nor {candidates[1]})")


def read_model_data(
    path: str | pathlib.Path | io.BufferedIOBase,
    required: tuple[str, ...],
    algorithm: str,
    name: str | pathlib.Path | io.BufferedIOBase | None = None,
) -> dict[str, Any]:
    """
    Read a model's attributes as they stand in its zip file: plain data are not decoded, and pickles not opened.

    :param path: file, with or without ".zip", or an open file, which is rewound
    :param required: attributes that a model of this kind has
    :param algorithm: name of its class, for messages
    :param name: what messages call the file, by default ``path``
    :return: attributes by name
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if the file is not a complete zip file, or holds something else than such a model
    """
    source: pathlib.Path | io.BufferedIOBase
    name = path if name is None else name
    if isinstance(path, io.BufferedIOBase):
        source = path
    else:
        source = model_file(path)
    try:
        with zipfile.ZipFile(source) as archive:
            broken = archive.testzip()
            if broken is not None:
                raise zipfile.BadZipFile(f"checksum of {broken}")
            # Weights are zip files within the zip file: one cut off behind them opens as these, with something in front
            if min((entry.header_offset for entry in archive.infolist()), default=0) > 0:
                raise zipfile.BadZipFile("its directory is missing")
            data = json.loads(archive.read("data")) if "data" in archive.namelist() else {}
    except (zipfile.BadZipFile, EOFError, OSError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{name} is not a complete zip file ({error}): it was truncated or is no model; take another checkpoint"
        ) from error
    if isinstance(source, io.BufferedIOBase):
        source.seek(0)
    missing = [attribute for attribute in required if attribute not in data]
    if missing:
        raise ValueError(
            f"{name} is no model of {algorithm}: it lacks {missing}. Load it with the class that saved it "
            "(a plain PPO with stable_baselines3.PPO.load), or train a new model if an older version of sb3_rmdp saved it"
        )
    return data
