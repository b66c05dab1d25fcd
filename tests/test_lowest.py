"""The lowest versions that setup.py allows are those of constraints-lowest.txt, which "make lowest" tries."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: Lower bounds in setup.py, and pins in a file of constraints
BOUND, PIN = re.compile(r'"([\w-]+)(?:\[\w+\])?>=([\d.]+)'), re.compile(r"^([\w-]+)==([\d.]+)$", flags=re.MULTILINE)


def normal(name: str) -> str:
    """
    :param name: of a package
    :return: its one spelling
    """
    return name.lower().replace("_", "-")


def test_every_lower_bound_is_pinned_to_it() -> None:
    required = re.findall(
        r"install_requires=\[(.*?)\n    \]", (ROOT / "setup.py").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    bounds = {normal(name): version for name, version in BOUND.findall(required[0])}
    pins = {normal(name): version for name, version in PIN.findall((ROOT / "constraints-lowest.txt").read_text())}
    assert len(bounds) == len(re.findall(r'^ +"', required[0], flags=re.MULTILINE)) and bounds.keys() == pins.keys()
    for name, version in bounds.items():
        # 1.24 stands for the first 1.24 that there is for this version of Python
        assert pins[name] == version or pins[name].startswith(f"{version}."), name


def test_scipy_has_what_evaluations_need() -> None:
    from scipy.sparse import block_array  # from 1.12 on

    assert callable(block_array)
