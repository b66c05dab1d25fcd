"""Trainings are worth more than what they write on their way: where a disk fails, they warn and go on."""

from __future__ import annotations

import contextlib
import errno
import warnings
from collections.abc import Iterator

from stable_baselines3.common.callbacks import BaseCallback

#: Errors of a disk that may be gone when the next file is written: it is full, or has failed
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EFBIG)


@contextlib.contextmanager
def warned_of_the_disk(what: str) -> Iterator[None]:
    """
    While in here, an error of writing is a warning.

    :param what: is written, e.g. "the evaluation"
    """
    try:
        yield
    except OSError as error:
        warnings.warn(f"{what} was not saved, and the training goes on: {error}", stacklevel=3)


def call_despite_the_disk(callback: BaseCallback) -> bool:
    """
    Call the callbacks of a training after a step. Where the disk fails, as under SB3's ``CheckpointCallback``, the checkpoint
    is missing, those after it in a list are not called in this step, and the training goes on. Whoever saves the model himself
    gets the error.

    :param callback: of the training
    :return: whether the training goes on
    :raises OSError: if it is none of the disk
    """
    try:
        return callback.on_step()
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        warnings.warn(f"a callback could not write its file, and the training goes on: {error}", stacklevel=2)
        return True
