"""Kills at operations on files, where a child process dies at the n-th operation, for every n; and full disks."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator

#: Audited operations that touch files
OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.chown", "fcntl.flock", "os.scandir")


def kills(work: Callable[[], object], folder: object, most: int = 200) -> Iterator[int]:
    """
    :param work: done in a forked child, which is killed before the n-th operation within the folder, n = 0, 1, ...
    :param folder: whose files count
    :param most: operations at most, so that a loop comes to its end
    :return: n, after each kill; ends when the work does
    """
    for n in range(most):
        pid = os.fork()
        if pid == 0:
            _work_and_die(work, str(folder), n)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "the work failed"
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
        yield n
    raise AssertionError(f"more than {most} operations")


def _work_and_die(work: Callable[[], object], folder: str, n: int) -> None:
    left = n

    def hook(event: str, arguments: tuple) -> None:
        nonlocal left
        if event in OPERATIONS and (event == "fcntl.flock" or any(folder in str(one) for one in arguments)):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    try:
        sys.addaudithook(hook)
        work()
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """The operating system lets no file grow beyond a size: the error comes from where a full disk's would come from."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
