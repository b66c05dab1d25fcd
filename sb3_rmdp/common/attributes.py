"""Attributes of a model in its zip file: plain data where they can be, and pickles only of what is trusted."""

from __future__ import annotations

import base64
import hashlib
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import cloudpickle

from sb3_rmdp.common.plain_data import NotPlain, decode, encode, names_own_class

#: Entry under which SB3 keeps a pickle
PICKLE = ":serialized:"

#: Entry beside a pickle under which the same stands as plain data, with references to classes of the user's own
PLAIN = ":as plain data:"

#: What acting does not need, and what stands in its place where it is not read
SCHEDULES: dict[str, Any] = {
    "learning_rate": 0.0,
    "lr_schedule": lambda _: 0.0,
    "clip_range": lambda _: 0.0,
    "clip_range_vf": None,
    "ent_coef": 0.0,
}

#: Digests of the files with pickles that this program has written itself
_own_files: set[bytes] = set()


class Attributes(NamedTuple):
    """
    :param values: replacements of what a file holds, by name
    :param left_out: schedules that were not read, since they are pickled
    """

    values: dict[str, Any]
    left_out: list[str]


def to_file(attributes: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """
    :param attributes: of a model, by name
    :return: the same as they are to be written, and whether the file needs pickles. An object that has no form as plain data
        stays as it is, and SB3 pickles it; with a class of the user's own it is both, since another program may have to
        unpickle the class
    """
    written, pickled = {}, False
    for name, value in attributes.items():
        try:
            content = encode(value)
        except NotPlain:
            content, pickled = value, True
        else:
            if names_own_class(content):
                pickle = base64.b64encode(cloudpickle.dumps(value)).decode()
                content, pickled = {":type:": str(type(value)), PICKLE: pickle, PLAIN: content}, True
        written[name] = content
    return written, pickled


def remember(content: bytes) -> None:
    """
    :param content: of a model file that this program writes: it may read it back
    """
    _own_files.add(hashlib.sha256(content).digest())


def is_remembered(content: bytes) -> bool:
    """
    :param content: of a model file
    :return: whether this program has written it, byte for byte
    """
    return hashlib.sha256(content).digest() in _own_files


def plain(content: Any) -> Any:
    """
    :param content: an attribute as it stands in a file
    :return: the plain data of it, if there are any beside a pickle
    """
    return content.get(PLAIN, content) if isinstance(content, dict) else content


def from_file(data: dict[str, Any], custom_objects: dict[str, Any], trusted: bool, name: str) -> Attributes:
    """
    What SB3's ``load`` must take in the place of what the file holds, so that it unpickles nothing that is not trusted.

    :param data: a model's attributes as they stand in its file
    :param custom_objects: the user's own replacements
    :param trusted: whether the rest may be unpickled
    :param name: of the file
    :return: replacements of all attributes but those that SB3 may unpickle
    :raises ValueError: if attributes that a model cannot do without are pickled, and the file is not trusted
    """
    values = dict(custom_objects)
    refused: dict[str, str] = {}
    for attribute in data.keys() - custom_objects.keys():
        content = plain(data[attribute])
        try:
            if isinstance(content, dict) and PICKLE in content:
                raise ValueError("a pickled object")
            if attribute == "assignment_method" and not trusted:
                _check_imported(content)
            values[attribute] = decode(content)
        except ValueError as error:
            if not trusted:
                refused[attribute] = str(error)
            elif content is data[attribute] and PICKLE not in content:
                raise ValueError(f"{name}: {attribute} cannot be read: {error}") from error
    needed = {attribute: reason for attribute, reason in refused.items() if attribute not in SCHEDULES}
    if needed:
        reasons = "; ".join(f"{attribute} is {reason}" for attribute, reason in sorted(needed.items()))
        raise ValueError(
            f"{name} holds more than plain data: {reasons}. If you know who made the file, pass trusted=True, which runs the "
            "code that it holds; or pass the objects yourself, custom_objects={name: object}"
        )
    values.update({attribute: SCHEDULES[attribute] for attribute in refused})
    # SB3 makes it anew from the learning rate
    left_out = sorted(refused.keys() - {"lr_schedule"})
    return Attributes(values, left_out)


def warn_of(left_out: Sequence[str], name: str) -> None:
    """
    :param left_out: schedules that were not read
    :param name: of the file
    """
    if left_out:
        warnings.warn(f"{name}: {cannot_learn(left_out)}", UserWarning, stacklevel=3)


def cannot_learn(left_out: Sequence[str]) -> str:
    """
    :param left_out: schedules that were not read
    :return: what that means, and what helps
    """
    return (
        f"{', '.join(left_out)} of the file: pickled functions, which are code, and were not loaded. The model acts, but can "
        "neither learn nor be saved: if you know who made the file, load it with trusted=True, or pass "
        f"{'=..., '.join(left_out)}=... to load"
    )


def _check_imported(assignment: Any) -> None:
    """An assignment that is named ``module:Class`` is imported, so that a file could run any module that lies around."""
    module = assignment.partition(":")[0] if isinstance(assignment, str) and ":" in assignment else None
    if module is not None and module not in sys.modules:
        raise ValueError(f"{assignment}, whose module this program has not imported")
