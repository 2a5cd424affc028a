"""Pieces of HTML. Names come from users: everything is escaped here, but for `Markup`."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path


class Markup(str):
    """Text that is HTML already."""


def show(content: object) -> str:
    """HTML of anything."""
    return content if isinstance(content, Markup) else escape(str(content))


def tag(name: str, *content: object, **attributes: object) -> Markup:
    """<name attributes>content</name>. In attributes `_` stands for '-', a trailing one is dropped; None: left out."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
                      for key, value in attributes.items() if value is not None)
    return Markup(f"<{name}{written}>{''.join(show(c) for c in content)}</{name}>")


def joined(parts: Sequence[object], between: str = "") -> Markup:
    return Markup(between.join(show(p) for p in parts))


def table(header: Sequence[object], rows: Sequence[Sequence[object]], caption: str = "", kind: str = "") -> Markup:
    """The first cell of each row names the row."""
    head = tag("tr", *(tag("th", cell, scope="col") for cell in header))
    body = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    return tag("div", tag("table", tag("caption", caption) if caption else "", tag("thead", head), tag("tbody", *body),
                          class_=kind or None), class_="wide")


def switched(contents: dict[str, object], by: str, kind: str = "") -> Markup:
    """One part per value of the page's selector `by`; the first is shown until another is chosen."""
    parts = [tag("div", content, class_=kind or None, **{f"data_when_{by}": value}, hidden="" if i else None)
             for i, (value, content) in enumerate(contents.items())]
    return joined(parts)


def selector(name: str, label: str, options: dict[str, str]) -> Markup:
    """The selector that `switched` parts follow; nothing if there is no choice. options: value -> text."""
    if len(options) < 2:
        return Markup("")
    choices = [tag("option", text, value=value) for value, text in options.items()]
    return tag("label", label, " ", tag("select", *choices, data_selects=name))


def number(value: float, digits: int = 3) -> str:
    """'–' for NaN, '∞' for infinity."""
    if math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:.{digits}f}".replace("-", "−")


def png(content: bytes, description: str) -> Markup:
    return Markup(f'<img alt="{escape(description)}" src="data:image/png;base64,{b64encode(content).decode()}">')


def page(title: str, *content: object) -> str:
    """A whole document with our styles and scripts in it. Its policy forbids the browser every request."""
    here = Path(__file__).parent
    style = (here / "report.css").read_text(encoding="utf-8")
    script = "\n".join((here / name).read_text(encoding="utf-8") for name in ("report.js", "viewer.js"))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
            f"<style>{style}</style></head>\n<body>{joined(content)}\n<script>{script}</script></body></html>\n")
