"""
Statistics of VecNormalize, read from what ``VecNormalize.save`` writes without running code in it.

The file is a pickle, which can call whatever it names. The statistics of an honest one name few classes: their module-level
names are listed here, and a file that names anything else is refused unless it is trusted.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from stable_baselines3.common.vec_env import VecNormalize

#: Bytes of a file at most: means and variances of the largest observations take less
LARGEST = 2**30

_ARRAYS = ("_reconstruct", "scalar")
_GENERATORS = ("PCG64", "MT19937", "Philox", "SFC64")

#: What honest files name, by module: arrays, spaces and their random numbers, running means, and VecNormalize itself
NAMES: dict[str, tuple[str, ...]] = {
    "__builtin__": ("bytes",),
    "_codecs": ("encode",),
    "builtins": ("bytes",),
    "collections": ("OrderedDict",),
    "gymnasium.spaces.box": ("Box",),
    "gymnasium.spaces.dict": ("Dict",),
    "gymnasium.spaces.discrete": ("Discrete",),
    "gymnasium.spaces.multi_binary": ("MultiBinary",),
    "gymnasium.spaces.multi_discrete": ("MultiDiscrete",),
    "numpy": ("dtype", "ndarray"),
    "numpy._core.multiarray": _ARRAYS,
    "numpy.core.multiarray": _ARRAYS,
    "numpy._core.numeric": ("_frombuffer",),
    "numpy.core.numeric": ("_frombuffer",),
    "numpy.random._pcg64": _GENERATORS,
    "numpy.random._mt19937": _GENERATORS,
    "numpy.random._philox": _GENERATORS,
    "numpy.random._sfc64": _GENERATORS,
    "numpy.random._pickle": ("__bit_generator_ctor", "__generator_ctor"),
    "numpy.random.bit_generator": ("SeedSequence", "__pyx_unpickle_SeedSequence"),
    "stable_baselines3.common.running_mean_std": ("RunningMeanStd",),
    "stable_baselines3.common.vec_env.vec_normalize": ("VecNormalize",),
}


class _Refused(Exception):
    """A name that no honest file has."""


class _Plain(pickle.Unpickler):
    """Makes nothing but what is in :data:`NAMES`."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in NAMES.get(module, ()):
            raise _Refused(f"{module}.{name}")
        return super().find_class(module, name)


def read_vec_normalize(path: Path, trusted: bool = False) -> VecNormalize:
    """
    :param path: file written by ``VecNormalize.save``
    :param trusted: make whatever the file names, which may run any code
    :return: its statistics, without an environment
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if it holds something else, or names what statistics have no use for and is not trusted
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} with statistics of VecNormalize")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} holds no statistics of VecNormalize: it is larger than {LARGEST} bytes")
    content = io.BytesIO(path.read_bytes())
    try:
        found = (pickle.Unpickler if trusted else _Plain)(content).load()
    except _Refused as error:
        raise ValueError(
            f"{path} names {error}, which statistics of VecNormalize have no use for, and which might run code: pass "
            "--trusted (trusted=True) if you know where it is from"
        ) from error
    except Exception as error:  # unpickling a file of any other kind may raise anything
        raise ValueError(f"{path} holds no statistics of VecNormalize ({error}): give another") from error
    if not isinstance(found, VecNormalize):
        raise ValueError(f"{path} holds no statistics of VecNormalize, but {type(found).__name__}: give another")
    return found
