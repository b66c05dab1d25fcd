"""Putting a folder in its place: at every moment there is the old one or the new one, whatever ends the process."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from sb3_rmdp.common.whole_files import sync

#: ``AT_FDCWD`` and ``RENAME_EXCHANGE`` of Linux: paths as they are, two names change places
WORKING_DIRECTORY, EXCHANGE = -100, 2

#: What file systems and kernels answer that cannot exchange
CANNOT = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM)

#: Ends of temporary names: a folder that is being filled, and an earlier one that is being replaced
FILLED, REPLACED = "tmp", "old"


@contextlib.contextmanager
def whole_folder(target: Path, check: Callable[[], None]) -> Iterator[Path]:
    """
    A folder beside its place, which is moved there if all goes well and is gone otherwise.

    Where something is at the place already, the two are exchanged in one step. Where the system cannot do that, the old one is
    renamed first; :func:`repair` puts it back if the process ends between the two steps.

    :param target: the place
    :param check: called before the folder is moved; raises if what is at the place must stay
    :return: the folder to fill
    :raises OSError: if no folder can be made or moved there
    """
    target = target.absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary, lock = _begin(target)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: no folder can be made there", str(target)) from error
    try:
        yield temporary
        check()
        if target.is_dir():
            shutil.copymode(target, temporary)
        for path in [*temporary.iterdir(), temporary]:
            sync(path)
        _put(temporary, target)
        sync(target.parent)
    finally:
        # After an exchange, this is what was there before
        shutil.rmtree(temporary, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def repair(target: Path) -> None:
    """
    Clean up after processes that were killed: put an earlier folder back that is nowhere else, remove other leftovers. What
    belongs to processes that are alive stays.

    :param target: place of a folder that :func:`whole_folder` has written, or was about to
    """
    target = target.absolute()
    for end in (REPLACED, FILLED):
        for path in leftovers(target, end):
            lock = _lock(path, wait=False)
            if lock is None:
                continue
            try:
                if end == REPLACED and not target.exists():
                    path.rename(target)
                else:
                    shutil.rmtree(path, ignore_errors=True)
            except OSError:
                continue  # another process was faster, or the folder may not be written to, which its user hears soon
            finally:
                os.close(lock)


def leftovers(target: Path, end: str = REPLACED) -> list[Path]:
    """
    :param target: place of a folder
    :param end: of their names
    :return: folders beside it with temporary names of it
    """
    parent, (head, tail) = target.absolute().parent, _around(target, end)
    if not parent.is_dir():
        return []
    names = sorted(name for name in os.listdir(parent) if name.startswith(head) and name.endswith(tail))
    return [
        parent / name
        for name in names
        if name[len(head) : -len(tail)].isalnum() and (parent / name).is_dir() and not (parent / name).is_symlink()
    ]


def _around(target: Path, end: str) -> tuple[str, str]:
    """What temporary names begin and end with; file systems allow 255 bytes, so that long names are told by their hash."""
    name = target.absolute().name
    if len(os.fsencode(name)) > 200:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return f".{name}.", f".{end}"


def _begin(target: Path) -> tuple[Path, int | None]:
    """An empty folder under a name that nobody else has, and the lock that says that its writer is alive."""
    head, tail = _around(target, FILLED)
    while True:
        path = target.with_name(f"{head}{secrets.token_hex(8)}{tail}")
        # Not tempfile.mkdtemp: the folder stays, and others than its writer may read it
        path.mkdir()
        lock = _lock(path, wait=True)
        if lock is None:
            return path, None
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(path), os.fstat(lock)):
                return path, lock
        os.close(lock)  # removed by a process that was faster with the lock


def _lock(path: Path, wait: bool) -> int | None:
    """
    :param path: a folder
    :param wait: wait until it is free
    :return: descriptor that holds its lock until it is closed, at the latest when the process ends; ``None`` if another has
        it, or there are no locks here
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # no Unix
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _put(temporary: Path, target: Path) -> None:
    """Move a folder to its place; what was there is under the temporary name then, or gone."""
    if not target.is_dir():
        temporary.rename(target)
        return
    if _exchange(temporary, target):
        return
    head, _ = _around(target, REPLACED)
    old = target.with_name(f"{head}{secrets.token_hex(8)}.{REPLACED}")
    lock = _lock(target, wait=False)
    try:
        target.rename(old)
        try:
            temporary.rename(target)
        except OSError:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        if lock is not None:
            os.close(lock)


def _exchange(first: Path, second: Path) -> bool:
    """
    :param first: a path
    :param second: another on the same file system
    :return: whether they have changed places; False if this system cannot do that
    :raises OSError: if it can, but did not
    """
    if sys.platform != "linux":
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # a C library older than 2018
        return False
    sys.audit("os.rename", str(first), str(second), -1, -1)
    names = os.fsencode(first), os.fsencode(second)
    if renameat2(WORKING_DIRECTORY, names[0], WORKING_DIRECTORY, names[1], EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in CANNOT:
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))
