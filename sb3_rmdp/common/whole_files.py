"""
Files that are written whole or not at all: the one place where the library writes files.

A file is written under a temporary name in its folder, brought to the disk, and renamed. Whoever reads its name sees the old
content or the new one, whatever dies meanwhile: the process, the machine, or the power. The temporary file is locked while it
is written, so that one whose process was killed is known from one that is being written, and is removed by the next save into
the folder.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from sb3_rmdp.common.locks import LOCK, is_at, try_lock

#: Names of temporary files. None tells its target, whose name may be as long as names can be
TEMPORARY = re.compile(r"\.sb3_rmdp-[0-9a-f]{16}\.tmp")

#: Seconds after which a temporary file is nobody's, on file systems without locks
ABANDONED = 86_400.0

#: Bytes of a file name at most
LONGEST_NAME = 255

#: Names under which a process finds files that it has open: these are written to, not replaced
STREAMS = ("/dev/fd/", "/dev/std", "/proc/")

#: What to do about errors
FIXES = {
    errno.ENOSPC: "free some, or give another place",
    errno.EDQUOT: "free some, or give another place",
    errno.EFBIG: "give a place where files may be larger",
    errno.EROFS: "give another place",
    errno.EACCES: "give a place that may be written to, or change its permissions",
    errno.EPERM: "give a place that may be written to, or change its permissions",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EISDIR: "it is a folder, give a file in it",
    errno.ENOTDIR: "one of its folders is a file, give another place",
    errno.EEXIST: "one of its folders is a file, or a link to nothing, give another place",
    errno.ENOENT: "make the folder that its link leads to",
    errno.ELOOP: "its links lead to each other, give another place",
}


def save_whole(path: str | Path, write: Callable[[io.BufferedIOBase], object], suffix: str = ".zip") -> Path:
    """
    Write a file whole or not at all; a file that was there stays until then, and where anything fails.

    Missing folders are made. The file gets the mode of the one that it replaces, or that of any new file. A link is followed:
    the file that it leads to is replaced, and the link stays. What cannot be replaced, such as a pipe or ``/dev/stdout``, is
    written to when everything is known.

    :param path: the file
    :param write: writes to the open file that it is given
    :param suffix: added to the name where there is none, as SB3 does
    :return: the file, with its suffix
    :raises OSError: if it cannot be written, with the path, the reason, and what to do about it
    """
    path = with_suffix(path, suffix)
    with _naming(path):
        if is_stream(path):
            content = io.BytesIO()
            write(content)
            with path.open("wb") as stream:
                stream.write(content.getbuffer())
        else:
            make_folder(path.parent)
            _replace(_target(path), write)
    return path


def with_suffix(path: str | Path, suffix: str) -> Path:
    """
    :param path: of a file
    :param suffix: added to the name where there is none
    :return: the path
    """
    path = Path(path)
    return path if path.suffix or not path.name else path.with_name(path.name + suffix)


def check_target(path: str | Path, suffix: str = "") -> Path:
    """
    See that a file can be written, before anything takes time; nothing is made yet.

    :param path: the file
    :param suffix: added to the name where there is none
    :return: the file
    :raises OSError: if it cannot be written there
    """
    path = with_suffix(path, suffix)
    with _naming(path):
        if max(len(os.fsencode(part)) for part in path.absolute().parts) > LONGEST_NAME:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        if is_stream(path):
            return path
        folder = _target(path).parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        number, what = (errno.EACCES, "may not be written to") if folder.is_dir() else (errno.ENOTDIR, "is no folder")
        raise OSError(number, f"cannot be written, since {folder} {what}: give another place", str(path))
    return path


def make_folder(folder: Path) -> None:
    """
    :param folder: made if it is missing, with those above it, and still there after a power cut
    """
    missing = [above for above in (folder, *folder.parents) if not above.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        sync(made.parent)


def sync(path: Path) -> None:
    """
    Bring a file, or the names in a folder, to the disk, where this can be asked for.

    :param path: the file or folder
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_abandoned(folder: Path) -> None:
    """
    Remove temporary files and locks whose process died; those that are being written, or are another user's, stay.

    :param folder: where to look
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if TEMPORARY.fullmatch(entry.name) or entry.name == LOCK:
                _remove_if_abandoned(Path(entry.path))


def is_stream(path: Path) -> bool:
    """
    :param path: of a file
    :return: whether it is no file on a disk that can be replaced: a pipe, a device, or another name of an open file
    """
    if str(path.absolute()).startswith(STREAMS):
        return path.exists()
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _target(path: Path) -> Path:
    """The file to replace: where links lead."""
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if target.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if target.exists() and not os.access(target, os.W_OK):
        # As without a temporary file: whoever made it read-only wants it to stay
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    return target


def _replace(target: Path, write: Callable[[io.BufferedIOBase], object]) -> None:
    remove_abandoned(target.parent)
    with _temporary(target.parent) as (file, temporary):
        if target.exists():
            _take_over(target, temporary)
        _write(file, write)
        os.fsync(file.fileno())
        if os.name == "nt":  # where what is open cannot be renamed; elsewhere it stays locked until it has its name
            file.close()
        os.replace(temporary, target)
    sync(target.parent)


def _write(file: io.BufferedWriter, write: Callable[[io.BufferedIOBase], object]) -> None:
    try:
        write(file)
        file.flush()
    except Exception as error:
        said = cast(_Disk, file.raw).said
        if said is None or said is error:
            raise
        raise said from None


class _Disk(io.FileIO):
    """A new file that notes the first error of the disk, after which zip files and torch raise errors of their own."""

    said: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.said = self.said or error
            raise


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[tuple[io.BufferedWriter, Path]]:
    """A new file, locked; gone in the end unless it has another name."""
    while True:
        # Not by tempfile, whose files are for their owner alone: the kernel applies the umask, which no thread can ask for
        path = folder / f".sb3_rmdp-{secrets.token_hex(8)}.tmp"
        file: io.BufferedWriter = io.BufferedWriter(cast(Any, _Disk(path, "xb")))
        try:
            try_lock(file, wait=True)
            if is_at(file, path):
                break
            file.close()  # taken for abandoned before it was locked
        except BaseException:
            _close(file, path)
            raise
    try:
        yield file, path
    finally:
        _close(file, path)


def _close(file: io.BufferedWriter, path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # of what was not written, if a disk is full
        file.close()
    with contextlib.suppress(OSError):  # Windows removes what is closed
        path.unlink(missing_ok=True)


def _take_over(target: Path, temporary: Path) -> None:
    """Mode and, as far as that is allowed, owner of the file that is replaced."""
    old = target.stat()
    new = temporary.stat()
    if os.name != "nt" and (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        with contextlib.suppress(OSError):
            os.chown(temporary, old.st_uid, old.st_gid)
    with contextlib.suppress(OSError):  # of file systems without modes
        os.chmod(temporary, stat.S_IMODE(old.st_mode))


def _remove_if_abandoned(path: Path) -> None:
    with contextlib.suppress(OSError):
        with path.open("r+b") as file:
            locked = try_lock(file)
            alive = locked is False or (locked is None and time.time() - path.stat().st_mtime < ABANDONED)
            if alive or not is_at(file, path):
                return
            if os.name != "nt":
                path.unlink()
        if os.name == "nt":
            path.unlink()


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of the disk with the path that was asked for, where they tell the temporary file or none, and what to do."""
    try:
        yield
    except OSError as error:
        told = None if error.filename is None else Path(str(error.filename))
        if not (told is None or TEMPORARY.fullmatch(told.name) or told in (path, *path.parents)):
            raise  # of another file, which it names
        if error.errno is None:
            raise OSError(f"{path} cannot be written: {error}") from error
        reason, fix = error.strerror or os.strerror(error.errno), FIXES.get(error.errno)
        raise OSError(error.errno, reason if fix is None else f"{reason}: {fix}", str(path)) from error
