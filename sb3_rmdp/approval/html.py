"""Parts of a page of HTML: whatever is not markup is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sb3_rmdp.approval.figures import Picture

#: Pixels, from which on a figure is not shrunk to the width of a telephone
WIDE = 480

STYLE = """
:root { color-scheme: light; --line: #c8ccd0; --faint: #f3f5f7; --link: #1a4f8b; --ink: #1c1e21; --note: #565c63; }
* { box-sizing: border-box; }
html { font-size: 16px; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 72rem; padding: 0 1rem 3rem; background: #fff; color: var(--ink);
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; line-height: 1.5; }
a { color: var(--link); }
h1 { font-size: clamp(1.3rem, 5vw, 1.7rem); line-height: 1.2; margin: 1.5rem 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .75rem; padding-bottom: .25rem; border-bottom: 2px solid var(--line); }
h3 { font-size: 1.1rem; margin: 0 0 .5rem; }
p, ul { max-width: 46rem; margin: .5rem 0 1rem; }
.note { color: var(--note); font-size: .95rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; max-width: none;
  margin: 1rem 0 0; padding: .6rem 0; border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.cards div { background: var(--faint); border-radius: 6px; padding: .6rem .9rem; }
.cards dt { color: var(--note); font-size: .9rem; }
.cards dd { margin: 0; font-size: 1.25rem; font-weight: 600; overflow-wrap: anywhere; }
.cards dd small { display: block; font-size: .9rem; font-weight: 400; color: var(--note); }
.scroll { overflow-x: auto; margin: .5rem 0 1.25rem; }
table { border-collapse: collapse; font-size: .95rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--note); padding: .25rem 0 .4rem; }
caption span { display: block; position: sticky; left: 0; max-width: min(44rem, calc(100vw - 5rem)); }
th, td { padding: .35rem 0 .35rem 1rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:first-child { padding-left: 0; }
tbody td { white-space: nowrap; }
td.nothing { max-width: 60vw; }
th:first-child { text-align: left; }
th { font-weight: 600; }
thead th { vertical-align: bottom; }
tbody th { font-weight: 500; }
.text th, .text td { text-align: left; }
.text td { overflow-wrap: anywhere; white-space: normal; min-width: 8rem; }
.text tbody th { white-space: nowrap; }
td.nothing { color: var(--note); text-align: left; white-space: normal; }
code { font-family: ui-monospace, "Liberation Mono", monospace; font-size: .95em; overflow-wrap: anywhere; }
figure { margin: 0 0 1.25rem; min-width: 0; }
figcaption { color: var(--note); font-size: .95rem; margin-top: .25rem; }
img { display: block; max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
.wide img { max-width: none; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 0 2rem;
  align-items: start; }
.strip { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(8.5rem, 45%), 1fr)); gap: .5rem;
  list-style: none; max-width: none; margin: 0; padding: 0; font-size: .9rem; color: var(--note); }
.strip img { width: 100%; max-width: 15rem; border: 1px solid var(--line); }
article { border: 1px solid var(--line); border-left: 6px solid var(--own, #777); border-radius: 6px;
  padding: .9rem 1rem; margin: 0 0 1.25rem; }
summary { cursor: pointer; padding: .2rem 0; color: var(--link); }
.attention { background: #fff8e6; border-left: 6px solid #d99a00; border-radius: 6px;
  padding: .75rem 1rem; margin: 1.25rem 0; }
.attention h2 { border: 0; margin: 0; padding: 0; font-size: 1.1rem; }
.attention ul { margin: .5rem 0 0; padding-left: 1.2rem; }
footer { margin-top: 3rem; padding-top: .75rem; border-top: 1px solid var(--line); color: var(--note); font-size: .95rem; }
@media print {
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  nav { display: none; }
  .scroll { overflow: visible; }
  details::details-content { content-visibility: visible; height: auto; }
  article, figure, tr { break-inside: avoid; }
  article.long { break-inside: auto; }
  h2, h3 { break-after: avoid; }
}
"""


class Markup(str):
    """Text that is HTML already."""


def text(content: object) -> Markup:
    """
    >>> text("a < b"), text(Markup("<b>"))
    ('a &lt; b', '<b>')

    :param content: anything; only :class:`Markup` is taken as HTML
    :return: HTML
    """
    return content if isinstance(content, Markup) else Markup(escape(str(content)))


def join(parts: Iterable[object], between: str = "\n") -> Markup:
    """
    :param parts: markup, or what becomes it
    :param between: what is put between two of them
    :return: all in a row
    """
    return Markup(between.join(text(part) for part in parts))


def element(name: str, *content: object, **attributes: object) -> Markup:
    """
    >>> element("p", "a & b", id="x", class_="note")
    '<p id="x" class="note">a &amp; b</p>'

    :param name: of the element
    :param content: what is in it
    :param attributes: values are escaped; an underscore at the end of a name is left out, others become hyphens
    :return: the element
    """
    told = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"' for key, value in attributes.items())
    return Markup(f"<{name}{told}>{join(content, '')}</{name}>")


def section(identifier: str, title: str, *content: object) -> Markup:
    """
    :param identifier: that links can point to
    :param title: heading
    :param content: what is below it
    :return: a section of the page
    """
    heading = element("h2", title, id=f"{identifier}-title")
    return element("section", join([heading, *content]), id=identifier, aria_labelledby=f"{identifier}-title")


def paragraph(*content: object, note: bool = False) -> Markup:
    """
    :param content: of the paragraph
    :param note: set it in smaller letters
    :return: the paragraph
    """
    return element("p", *content, **({"class_": "note"} if note else {}))


def table(caption: str, header: Sequence[object], rows: Iterable[Sequence[object]], kind: str = "") -> Markup:
    """
    A table that scrolls by itself where it is wider than the page.

    :param caption: what it shows
    :param header: names of the columns; empty for none
    :param rows: cells; the first of each is a heading. A row that is shorter than the others is filled by its last cell
    :param kind: "text" for words instead of numbers
    :return: the table
    """
    head = element("thead", element("tr", *[element("th", name, scope="col") for name in header])) if header else ""
    lines = [_row(row, len(header)) for row in rows]
    whole = element(
        "table",
        element("caption", element("span", caption)),
        head,
        element("tbody", join(lines)),
        **({"class_": kind} if kind else {}),
    )
    # With the keyboard one can scroll only what can have the focus
    return element("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _row(row: Sequence[object], columns: int) -> Markup:
    first, *others = row
    cells = [element("td", cell) for cell in others]
    if others and len(row) < columns:
        cells[-1] = element("td", others[-1], colspan=columns - len(row) + 1, class_="nothing")
    return element("tr", element("th", first, scope="row"), *cells)


def figure(picture: Picture, caption: object, alt: str) -> Markup:
    """
    A figure; one that is made for a large page keeps its size on a small one, and scrolls there.

    :param picture: the image
    :param caption: below it
    :param alt: what it shows, for those who cannot see it
    :return: the figure
    """
    shown = image(picture, alt)
    if picture.width > WIDE:
        shown = element("div", shown, class_="wide", tabindex="0", role="region", aria_label=alt)
    return element("figure", shown, element("figcaption", caption))


def image(picture: Picture, alt: str) -> Markup:
    """
    :param picture: the image
    :param alt: what it shows
    :return: an element without end tag
    """
    return Markup(f'<img src="{picture.uri}" alt="{escape(alt)}" width="{picture.width}" height="{picture.height}">')


def details(summary: object, *content: object) -> Markup:
    """
    :param summary: what is always shown
    :param content: what a click opens
    :return: the element
    """
    return element("details", element("summary", summary), *content)


def bullets(items: Iterable[object]) -> Markup:
    """
    :param items: of the list
    :return: the list
    """
    return element("ul", *[element("li", item) for item in items])


def page(title: str, language: str, *content: object) -> str:
    """
    :param title: of the window
    :param language: such as "en-GB"
    :param content: of the body
    :return: a whole document that needs nothing but itself
    """
    # Whatever should slip through, the browser is told to load nothing
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = [
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        # A browser would ask for one
        Markup('<link rel="icon" href="data:,">'),
        element("title", title),
        Markup(f"<style>{STYLE}</style>"),
    ]
    body = join(["", *content, ""])
    return f'<!DOCTYPE html>\n<html lang="{escape(language)}">\n<head>\n{join(head)}\n</head>\n<body>{body}</body>\n</html>\n'
