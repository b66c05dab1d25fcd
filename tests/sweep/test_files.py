"""Files of sweeps as users write them: read, or refused with the file and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from sb3_rmdp.sweep.config import read_sweep
from sb3_rmdp.sweep.values import read_yaml

PLAIN = "environments: [rmdp/ResourceGathering-v0]\nk: [1, 2]\ntransitions_per_policy: 100\n"


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "grid.yml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        PLAIN.replace("[1, 2]", "&a [1, 2]") + "once: []\nn: null\ncheckpoints: null\n",
    ],
)
def test_encodings_and_ends_of_lines(content: str | bytes, tmp_path: Path) -> None:
    assert [run.k for run in read_sweep(written(tmp_path, content)).runs] == [1, 2]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (PLAIN.encode() + b"name: caf\xe9\n", "line 4 is no text in UTF-8"),
        (PLAIN + "hyperparams:\n\tgamma: 0.9\n", "cannot start any token"),
        (PLAIN + "k: [3]\n", "'k' is there twice"),
        (PLAIN + "hyperparams: {gamma: 0.9, gamma: 0.8}\n", "'gamma' is there twice"),
        (PLAIN + f"hyperparams: {'[' * 5000}{']' * 5000}\n", "nested too deeply"),
        (PLAIN + "hyperparams: &a {policy_kwargs: *a}\n", "an alias leads back to itself"),
        (PLAIN + "hyperparams: !!python/object/apply:os.system [echo]\n", "could not determine a constructor"),
        (b"PK\x03\x04", "a zip file"),
        ("", "a sweep is a mapping"),
        ("\0\0\0\0", "begins with zeros"),
    ],
)
def test_what_is_no_sweep(content: str | bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^{tmp_path}/grid.yml: .*{said}"):
        read_sweep(written(tmp_path, content))


def test_a_few_lines_do_not_become_millions_of_values(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 20)]
    with pytest.raises(ValueError, match="more than 1000000 values"):
        read_sweep(written(tmp_path, "\n".join(lines)))
    assert read_yaml("a: &a [1]\nb: [*a, *a]") == {"a": [1], "b": [[1], [1]]}


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it is a folder"):
        read_sweep(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_sweep(tmp_path / "missing.yml")
