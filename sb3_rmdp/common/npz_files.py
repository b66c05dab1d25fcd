"""Arrays from .npz files that may be damaged or forged: nothing is unpickled, and sizes are known before memory is taken."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

#: Ways to compress that numpy writes
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

#: Bit of a member that is encrypted
ENCRYPTED = 0x1


def read_npz(path: Path, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    """
    Read the arrays of an ``.npz`` file that are wanted, and look at no other ones.

    :param path: the file
    :param wanted: whether an array is wanted, by its name
    :return: arrays by name
    :raises ValueError: if the file is damaged, its arrays have objects in them, or are larger than this machine's memory
    :raises OSError: if it cannot be read
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members: dict[str, zipfile.ZipInfo] = {}
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name in members:
                    raise ValueError(f"{name} is in it twice")
                if name != member.filename and wanted(name):
                    members[name] = member
            sizes = {name: _check(archive, name, member) for name, member in members.items()}
            if sum(sizes.values()) > _memory():
                raise ValueError(f"its arrays need {sum(sizes.values()) / 1e9:.0f} GB, more than this machine has")
            return {name: _read(archive, member) for name, member in members.items()}
    except (ValueError, OSError):
        raise
    except Exception as error:  # of damaged files zipfile, zlib and numpy raise anything
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _check(archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo) -> int:
    """See that a member holds what its header says; returns the bytes of the array."""
    if member.flag_bits & ENCRYPTED or member.compress_type not in COMPRESSIONS:
        raise ValueError(f"{name} is encrypted, or compressed in another way than numpy does")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise ValueError(f"{name} is in another format than this version reads")
        shape, _, dtype = read_header(file)
        begins = file.tell()
    if dtype.hasobject:
        raise ValueError(f"{name} has objects in it, which are not read")
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or begins + size != member.file_size:
        raise ValueError(f"{name} is not as long as it says")
    return size


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        file.read(1)  # at its end the checksum is looked at
    return array


def _memory() -> float:
    """Bytes of memory of this machine, where it tells."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # Windows
        return math.inf
