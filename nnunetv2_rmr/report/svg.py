"""A few SVG shapes as text, and a plot area that turns values into coordinates. Everything given is escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

# Okabe and Ito's colours, which the colour-blind can tell apart; markers and dashes say the same without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("circle", "square", "triangle", "diamond")
DASHES = ("", "6 3", "2 2", "8 3 2 3")


def f(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def text(x: float, y: float, content: str, anchor: str = "middle", kind: str = "") -> str:
    css = f' class="{kind}"' if kind else ""
    return f'<text x="{f(x)}" y="{f(y)}" text-anchor="{anchor}"{css}>{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{f(x1)}" y1="{f(y1)}" x2="{f(x2)}" y2="{f(y2)}" class="{kind}"/>'


def marker(x: float, y: float, shape: str, colour: str, size: float = 3.2, title: str = "") -> str:
    inside = f"<title>{escape(title)}</title>" if title else ""
    style = f'fill="{colour}" fill-opacity=".85" stroke="#fff" stroke-width=".6"'
    if shape == "circle":
        return f'<circle cx="{f(x)}" cy="{f(y)}" r="{f(size)}" {style}>{inside}</circle>'
    turned = {"square": (45, 135, 225, 315), "triangle": (90, 210, 330), "diamond": (0, 90, 180, 270)}[shape]
    far = 1.25 * size
    corners = " ".join(f"{f(x + far * math.cos(math.radians(a)))},{f(y - far * math.sin(math.radians(a)))}"
                       for a in turned)
    return f'<polygon points="{corners}" {style}>{inside}</polygon>'


def polyline(points: Iterable[tuple[float, float]], colour: str, dash: str = "") -> str:
    path = " ".join(f"{f(x)},{f(y)}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-dasharray="{dash}"/>'


def band(points: Iterable[tuple[float, float, float]], colour: str) -> str:
    """points: x, lower y, upper y."""
    points = list(points)
    path = " ".join(f"{f(x)},{f(y)}" for x, y in [(x, u) for x, _, u in points] + [(x, d) for x, d, _ in points[::-1]])
    return f'<polygon points="{path}" fill="{colour}" fill-opacity=".16"/>'


def picture(width: float, height: float, title: str, body: str, description: str = "") -> str:
    more = f"<desc>{escape(description)}</desc>" if description else ""
    return (f'<svg viewBox="0 0 {f(width)} {f(height)}" width="{f(width)}" height="{f(height)}" role="img" '
            f'aria-label="{escape(title)}"><title>{escape(title)}</title>{more}{body}</svg>')


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round values in [low, high]."""
    rough = (high - low) / about
    if not rough > 0:
        return [low]
    power = 10 ** math.floor(math.log10(rough))
    step = power * next(s for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
    return [round(i * step, 10) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


class Plot:
    """Axes with ticks around an area; `x` and `y` turn values into coordinates."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], width: float = 230, height: float = 165):
        self.xs, self.ys, self.width, self.height = x, y, width, height
        self.left, self.right, self.top, self.bottom = 36, width - 8, 24, height - 32

    def x(self, value: float) -> float:
        low, high = self.xs
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        low, high = self.ys
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def axes(self, title: str, x_label: str, y_label: str, x_ticks: list[float] | None = None) -> str:
        parts = [text(self.width / 2 + 10, 14, title, kind="title")]
        for value in ticks(*self.ys):
            parts += [line(self.left, self.y(value), self.right, self.y(value), "grid"),
                      text(self.left - 4, self.y(value) + 3.5, f"{value:g}", "end")]
        for value in x_ticks if x_ticks is not None else ticks(*self.xs):
            parts.append(text(self.x(value), self.bottom + 13, f"{value:g}"))
        parts += [line(self.left, self.bottom, self.right, self.bottom, "axis"),
                  text((self.left + self.right) / 2, self.height - 5, x_label, kind="label"),
                  f'<g transform="translate(10 {f((self.top + self.bottom) / 2)}) rotate(-90)">'
                  + text(0, 0, y_label, kind="label") + "</g>"]
        return "".join(parts)
