"""
Results of sweeps: one CSV file, one row per run and checkpoint.

Rows of a run are appended together, when it is finished, and every one of them says how many there are: what a crash has cut
off is known to be incomplete, and goes when the file is opened the next time.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from sb3_rmdp.common.locks import is_at, open_locked, try_lock
from sb3_rmdp.common.whole_files import check_target, make_folder, sync

#: Layout of the file
SCHEMA = "1"

#: Characters of a cell at most, where Python's csv takes a hundred thousand: agents can be a million
LONGEST_CELL = 2**31 - 1

COLUMNS = (
    "schema",
    "sweep",
    "run",
    "env",
    "env_kwargs",
    "k",
    "n_agents",
    "algorithm",
    "model",
    "seed",
    "transitions_per_policy",
    "checkpoints",
    "n_eval_episodes",
    "stochastic",
    "stochastic_error",
    "stochastic_greedy",
    "deterministic",
    "deterministic_error",
    "deterministic_greedy",
    "bound",
    "representatives",
    "seconds",
    "versions",
)


def read_results(path: Path) -> list[dict[str, str]]:
    """
    :param path: file of results
    :return: rows of the runs that are complete, in their order; none if there is no file
    :raises ValueError: if it is something else, or of another version
    """
    return _parse(path, path.read_bytes())[0] if path.exists() else []


class Results:
    """
    A file of results that is open for more, for one process at a time.

    Once appended, a run survives whatever comes. The file is locked until it is closed or the process dies. If it is replaced
    or removed meanwhile, as version control or an editor may do, what is at its path then is gone on with.

    :param path: the file; made, with its folder, if there is none
    :raises ValueError: if it is something else, of another version, or held by another sweep
    :raises OSError: if it cannot be written
    """

    def __init__(self, path: Path):
        self.path = path
        self._open()

    def _open(self) -> None:
        if self.path.exists() and not self.path.is_file():
            raise ValueError(f"{self.path} is no file: name another by --out")
        make_folder(check_target(self.path).parent)
        self._made = not self.path.exists()
        self._file = open_locked(self.path, lambda file, path: _lock(file, path))
        try:
            self._file.seek(0)
            content = self._file.read()
            self.rows, complete = _parse(self.path, content)
            if complete < len(content):
                self._file.truncate(complete)
        except BaseException:
            self._file.close()
            raise

    @property
    def done(self) -> set[str]:
        """Ids of the runs that are in the file."""
        return {row["run"] for row in self.rows}

    def append(self, rows: Sequence[Mapping[str, object]]) -> None:
        """
        All or nothing; when this returns, they are on the disk.

        :param rows: all rows of a run, by column; ``schema`` and ``checkpoints`` are added. If the file was replaced meanwhile
            by one that has the run, that one stays
        :raises ValueError: if the run is there already
        :raises OSError: if the disk is full, or worse
        """
        texts = [{name: _cell(value) for name, value in row.items()} for row in rows]
        texts = [{**row, "schema": SCHEMA, "checkpoints": str(len(rows))} for row in texts]
        if not is_at(self._file, self.path):
            self._file.close()
            try:
                self._open()
            except ValueError as error:
                raise OSError(f"the file of results was replaced: {error}") from error
            if self.done & {row["run"] for row in texts}:
                return
        if self.done & {row["run"] for row in texts}:
            raise ValueError(f"{self.path} has the run {texts[0]['run']} already")
        end = os.fstat(self._file.fileno()).st_size
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
        if end == 0:
            writer.writeheader()
        writer.writerows(texts)
        data = buffer.getvalue().encode()
        try:
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(end)
            raise OSError(error.errno, f"{error.strerror}: free some, or give another place", str(self.path)) from error
        if end == 0:
            sync(self.path.parent)
        self.rows.extend(texts)

    def close(self) -> None:
        """Release the file; one that was made here, and that nothing was written to, goes."""
        if self._file.closed:
            return
        if self._made and os.fstat(self._file.fileno()).st_size == 0 and is_at(self._file, self.path):
            with contextlib.suppress(PermissionError):  # Windows keeps what is open
                self.path.unlink()
        self._file.close()

    def __enter__(self) -> Results:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _cell(value: object) -> str:
    """Numbers with all their digits, nothing for ``None``, and never more than one line: a line is a row."""
    return "" if value is None else " ".join(str(value).splitlines())


def _lock(file: io.FileIO, path: Path) -> None:
    # Without locks, as on Windows, two sweeps at a time are for the user to avoid
    if try_lock(file) is False:
        raise ValueError(f"another sweep is writing to {path}: wait until it ends, or name another file by --out")


def _parse(path: Path, content: bytes) -> tuple[list[dict[str, str]], int]:
    """
    :param path: where the content is from, for messages
    :param content: of the file
    :return: rows of complete runs, and the number of bytes up to where a run that was cut off begins
    """
    if f"{','.join(COLUMNS)}\n".encode().startswith(content):
        return [], len(content) if content.endswith(b"\n") else 0
    # Of bytes: a line that is torn may end within a letter
    lines = content.splitlines(keepends=True)
    whole = lines if lines[-1].endswith(b"\n") else lines[:-1]
    cells = _cells(path, whole)
    _check_layout(path, cells)
    for number, line_cells in enumerate(cells, start=1):
        if len(line_cells) != len(COLUMNS):
            raise ValueError(f"{path}, line {number} has {len(line_cells)} cells for {len(COLUMNS)} columns: fix it")
    rows = [dict(zip(COLUMNS, line_cells, strict=True)) for line_cells in cells[1:]]

    found = Counter(row["run"] for row in rows)
    complete = len(rows)
    # Only the last run can have been cut off
    while complete and rows[complete - 1]["run"] == rows[-1]["run"] and _lacks_rows(rows[-1], found):
        complete -= 1
    for number, row in enumerate(rows[:complete], start=2):
        if row["checkpoints"] != str(found[row["run"]]):
            raise ValueError(
                f"{path}, line {number}: run {row['run']} has {found[row['run']]} rows in the place of {row['checkpoints']}: "
                "remove all of them, or those that are there twice"
            )
        _check_values(path, number, row)
    return rows[:complete], sum(map(len, lines[: complete + 1]))


def _cells(path: Path, lines: Sequence[bytes]) -> list[list[str]]:
    """Of each line; every line is a row."""
    limit = csv.field_size_limit(LONGEST_CELL)
    try:
        return [next(csv.reader([line.decode()])) for line in lines]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no file of results, {error}: name another by --out") from error
    finally:
        csv.field_size_limit(limit)


def _check_values(path: Path, number: int, row: Mapping[str, str]) -> None:
    """That those can be read which are looked at before anything is trained."""
    for names, read in ((("k", "transitions_per_policy"), int), (("seconds",), float), (("env_kwargs", "versions"), _mapping)):
        for name in names:
            try:
                read(row[name])
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {name} is {row[name]!r}, which cannot be read: fix it") from error


def _mapping(text: str) -> dict[str, object]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("no mapping")
    return value


def _lacks_rows(row: dict[str, str], found: Counter[str]) -> bool:
    return row["checkpoints"].isdigit() and found[row["run"]] < int(row["checkpoints"])


def _check_layout(path: Path, cells: Sequence[Sequence[str]]) -> None:
    """That the first line has the columns, and that the others are of this schema."""
    if not cells or cells[0][:1] != ["schema"]:
        raise ValueError(f"{path} is no file of results, by its first line: name another by --out")
    for number, line in enumerate(cells[1:], start=2):
        if not line:
            raise ValueError(f"{path}, line {number} is empty: remove it")
        if line[0] != SCHEMA:
            raise ValueError(
                f"{path}, line {number}: the results are of schema {line[0]!r}, this version writes {SCHEMA!r}: name another "
                "file by --out"
            )
    if tuple(cells[0]) != COLUMNS:
        raise ValueError(f"{path} has other columns than this version writes: name another file by --out")
