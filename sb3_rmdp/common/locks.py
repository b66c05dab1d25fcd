"""Locks on files, by which processes keep out of each other's way. A process that dies releases its locks."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: Errors of file systems without locks
NO_LOCKS = (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL)

#: Name of the file by which a folder is locked
LOCK = ".sb3_rmdp.lock"


def try_lock(file: io.IOBase, wait: bool = False) -> bool | None:
    """
    Lock an open file until it is closed or the process dies.

    :param file: open to write
    :param wait: wait until whoever holds it has released it
    :return: whether it is locked now; ``None`` where there are no locks: on Windows, and on some file systems
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        raise
    return True


def is_at(file: io.IOBase, path: str | Path) -> bool:
    """
    :param file: an open file
    :param path: where it was opened
    :return: whether it is still the file at this path
    """
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def open_locked(path: Path, lock: Callable[[io.FileIO, Path], None]) -> io.FileIO:
    """
    :param path: a file; made if there is none
    :param lock: locks it, or raises an error
    :return: the file, open to read and to append, and locked
    """
    while True:
        file = path.open("a+b", buffering=0)
        try:
            lock(file, path)
        except BaseException:
            file.close()
            raise
        if is_at(file, path):
            return file
        file.close()  # whoever held the lock has just removed the file


@contextlib.contextmanager
def locked_folder(folder: Path, whose: str) -> Iterator[None]:
    """
    Keep other processes that ask for the same lock out of a folder. There must be one.

    :param folder: the folder
    :param whose: who holds the lock, for the message, e.g. "another budget curve"
    :raises ValueError: if another process has locked it
    """

    def lock(file: io.FileIO, _: Path) -> None:
        if try_lock(file) is False:
            raise ValueError(f"{whose} is writing to {folder}: wait until it ends, or give another folder")

    path = folder / LOCK
    with open_locked(path, lock):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows keeps what is open
                path.unlink()
