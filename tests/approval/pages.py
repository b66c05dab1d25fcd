"""Reading pages of HTML in tests."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

#: Elements without end tag
VOID = {"meta", "link", "img", "br", "hr", "input"}
#: Attributes by which a page loads or opens something
ADDRESSES = {"src", "href", "srcset", "data", "action", "poster", "background", "cite", "xlink:href"}


class Page(HTMLParser):
    """
    The elements of a page, which must be nested properly.

    :param text: of the page
    """

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        #: Cells of each table by its caption
        self.tables: dict[str, list[list[str]]] = {}
        self._caption = ""
        self._rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    @classmethod
    def read(cls, path: Path) -> Page:
        """
        :param path: of a file
        :return: the page in it
        """
        return cls(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.words.append(data)
        if "caption" in self.open:
            self._caption += data
        elif {"td", "th"} & set(self.open):
            self._rows[-1][-1] += data

    @property
    def text(self) -> str:
        """All that is to be read, in a line."""
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        """
        :param tag: name of elements
        :return: their attributes
        """
        return [attributes for name, attributes in self.elements if name == tag]

    def addresses(self) -> list[str]:
        """All that the page points to."""
        return [value for _, attributes in self.elements for name, value in attributes.items() if name in ADDRESSES]
