"""
Tables that users wrote as text: every cell is read, or refused with its line; no row is left out.

Cells are separated by ``;``, tabs, ``,`` or spaces: the first of these that is in the first line, outside of quotation marks.
Where ``,`` does not separate cells, numbers may have it in the place of a decimal point, as spreadsheets of many countries do.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import math
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sb3_rmdp.common.user_files import open_text, read_as

#: What separates cells, the first one first that is looked for; ``None`` is white space
SEPARATORS = (";", "\t", ",", None)

#: What is no name of a column: numbers that are missing, and, around a decimal point, letters that are taken for digits
MISSING = ("na", "n/a", "nan", "null", "none", "nil", "true", "false")
LIKE_NUMBERS = frozenset("0123456789.,+-eEOoIl")

#: Numbers whose comma may separate thousands
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")

#: Characters of a cell at most, where Python's csv takes a hundred thousand
LONGEST_CELL = 2**28

#: Of which so many are shown in messages
LONGEST_SHOWN = 40


@dataclass(slots=True)
class Row:
    """
    A line of a table.

    :param line: its number, from 1 on
    :param cells: its texts, without white space around them
    :param numbers: reads those that are numbers
    """

    line: int
    cells: Sequence[str]
    numbers: Numbers

    def __getitem__(self, index: int) -> float:
        """
        :param index: of a cell
        :return: its number
        :raises ValueError: if it is something else, or not finite
        """
        return self.numbers.read(self, index)

    def tell(self, index: int) -> str:
        """
        :param index: of a cell
        :return: where it is and what is in it, for messages
        """
        text = self.cells[index]
        shown = repr(text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}...")
        return f"line {self.line}, cell {index + 1} {f'is {shown}' if text else 'is empty'}"


class Numbers:
    """
    Reads the numbers of one table, all in one way.

    :param comma: whether ``,`` may stand for a decimal point
    """

    def __init__(self, comma: bool):
        self._comma = comma
        #: Cells that were seen first: with a point, with a comma that is a decimal one, and with one that may be another
        self._seen: dict[str, str] = {}

    def parse(self, text: str) -> float:
        """
        :param text: of a cell
        :return: its number, which may be nan or infinite
        :raises ValueError: if it is none
        """
        # float reads more than people write: 1_000, and digits of other scripts
        if "_" in text or not text.isascii():
            raise ValueError(text)
        if self._comma and "," in text:
            if "." in text:
                raise ValueError(text)
            text = text.replace(",", ".")
        return float(text)

    def is_number(self, text: str) -> bool:
        """
        :param text: of a cell
        :return: whether it is a number
        """
        try:
            self.parse(text)
        except ValueError:
            return False
        return True

    def read_all(self, row: Row) -> list[float]:
        """
        :param row: of the table
        :return: the numbers of all its cells
        :raises ValueError: see :meth:`read`
        """
        text = "".join(row.cells)
        # At once, where no cell needs a closer look
        noted = not self._comma or "." in self._seen or "." not in text
        if noted and text.isascii() and "_" not in text and "," not in text:
            with contextlib.suppress(ValueError):
                values = list(map(float, row.cells))
                if math.isfinite(sum(values)):
                    return values
        return [self.read(row, index) for index in range(len(row.cells))]

    def read(self, row: Row, index: int) -> float:
        """
        :param row: of the table
        :param index: of a cell
        :return: its number
        :raises ValueError: if it is something else, or not finite
        """
        text = row.cells[index]
        try:
            number = self.parse(text)
        except ValueError:
            hint = "which is no number: " + ("remove the comment" if "#" in text else "correct it")
            raise ValueError(f"{row.tell(index)}{f', {hint}' if text else ': fill it in'}") from None
        if not math.isfinite(number):
            raise ValueError(f"{row.tell(index)}: give a finite number")
        if self._comma and ("," in text or "." in text):
            self._note("." if "." in text else "thousands" if THOUSANDS.fullmatch(text) else ",", row, index)
        return number

    def _note(self, kind: str, row: Row, index: int) -> None:
        self._seen.setdefault(kind, row.tell(index))
        if "." in self._seen and len(self._seen) > 1:
            other = self._seen.get(",") or self._seen["thousands"]
            raise ValueError(f"{self._seen['.']} and {other}: write all decimal points alike")

    def finish(self) -> None:
        """
        :raises ValueError: if commas may separate thousands as well as decimals
        """
        if "thousands" in self._seen and "," not in self._seen:
            raise ValueError(f"{self._seen['thousands']}, a decimal comma or one of thousands: write decimal points")


def rows_of(lines: Iterator[str]) -> Iterator[Row]:
    """
    :param lines: of a file, with their ends
    :return: its rows, read one after the other
    :raises ValueError: if there is none, one is empty, or one has another number of cells than the first one
    """
    first = next(lines, "")
    if not first.strip():
        raise ValueError("line 1 is empty: remove it" if first else "it is empty")
    # Quotation marks that are not closed are left to the reader, which complains
    unquoted = first if first.count('"') % 2 else "".join(first.split('"')[::2])
    separator = next(one for one in SEPARATORS if one is None or one in unquoted)
    numbers, length, blank = Numbers(comma=separator != ","), None, None
    for line, texts in _cells(itertools.chain([first], lines), separator):
        cells = [text.strip() for text in texts]
        if cells in ([], [""]):
            blank = blank or line
            continue
        if blank is not None:  # empty lines at the end are nobody's
            raise ValueError(f"line {blank} is empty: remove it, or fill it in")
        length = length or len(cells)
        if len(cells) != length:
            raise ValueError(f"line {line} has {len(cells)} cells, and the first line {length}: give all lines as many")
        yield Row(line, cells, numbers)
    numbers.finish()


def _cells(lines: Iterator[str], separator: str | None) -> Iterator[tuple[int, list[str]]]:
    """Of each row, with the number of the line in which it begins."""
    if separator is None:
        yield from ((number, line.split()) for number, line in enumerate(lines, start=1))
        return
    begins, limit = 1, csv.field_size_limit(LONGEST_CELL)
    try:
        reader = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)
        for cells in reader:
            yield begins, cells
            begins = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"line {begins} cannot be read, {error}") from error
    finally:
        csv.field_size_limit(limit)


def read_numbers(path: Path, what: str) -> np.ndarray:
    """
    :param path: a table of numbers; the first line is names of columns if no cell of it is a number
    :param what: it should be, for messages, e.g. "table of weights"
    :return: its numbers, (rows, columns) float64
    :raises ValueError: if a cell is something else, with file, line and cell
    :raises OSError: if it cannot be read
    """
    values, n_rows = array("d"), 0
    with read_as(path, what), open_text(path) as file:
        rows = rows_of(iter(file))
        first = next(rows)
        columns = range(len(first.cells))
        named = not any(map(first.numbers.is_number, first.cells))
        if named:
            _check_names(first)
        for row in rows if named else itertools.chain([first], rows):
            values.extend(row.numbers.read_all(row))
            n_rows += 1
        if not n_rows:
            raise ValueError("it has names of columns, and no row below them")
        if not named and n_rows > 1 and len(columns) > 1 and list(first.cells) == list(map(str, columns)):
            raise ValueError(
                f"line 1 is {', '.join(first.cells)}: if these are names of columns, give names that are no numbers; if they "
                "are numbers, write 0.0 in the place of 0"
            )
    return np.array(values).reshape(n_rows, len(columns))


def read_columns(path: Path, names: Sequence[str]) -> Iterator[Row]:
    """
    :param path: a table with names of columns in its first line
    :param names: of the columns that are wanted; there may be others, and the order is any
    :return: each row below, with the cells of these columns in this order
    :raises ValueError: if a column is missing or there twice
    :raises OSError: if it cannot be read
    """
    with open_text(path) as file:
        rows = rows_of(iter(file))
        header = list(next(rows).cells)
        for name in names:
            if header.count(name) != 1:
                said = "twice the column" if name in header else "no column"
                raise ValueError(f"it has {said} {name}; begin it with the line {','.join(names)}")
        places = [header.index(name) for name in names]
        for row in rows:
            yield Row(row.line, [row.cells[place] for place in places], row.numbers)


def _check_names(row: Row) -> None:
    """That a first line without numbers is names: a user whose numbers all have typos must not be lost."""
    names = [text.lstrip("# ") if index == 0 else text for index, text in enumerate(row.cells)]
    for index, name in enumerate(names):
        is_word = (name[:1].isalpha() or name[:1] == "_") and "#" not in name
        is_typo = set(name) <= LIKE_NUMBERS and ("." in name or "," in name)
        if not is_word or is_typo or name.lower() in MISSING:
            raise ValueError(f"{row.tell(index)}, neither a number nor a name of a column: correct it")
        if names.index(name) < index:
            raise ValueError(f"{row.tell(index)}, as cell {names.index(name) + 1}: give columns different names")
