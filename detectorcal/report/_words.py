"""Numbers in words: with their units, and no more digits than count."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape

__all__ = ["count", "in_html", "number", "percent", "thinned", "whole"]


def percent(fraction: float) -> str:
    """Write a fraction as %, with two digits that count.

    Examples
    --------
    >>> percent(0.02), percent(0.00144), percent(0.213)
    ('2.0 %', '0.14 %', '21 %')
    """
    return f"{number(100 * fraction, digits=2)} %" if math.isfinite(fraction) else "not known"


def number(value: float, unit: str = "", digits: int = 4) -> str:
    """Write a number with its unit, thousands apart.

    Examples
    --------
    >>> number(613278.0, "e⁻"), number(0.50251, "DN/e⁻"), number(float("nan"), "DN")
    ('613 300 e⁻', '0.5025 DN/e⁻', 'not known')
    """
    if not math.isfinite(value):
        return "not known"
    rounded = float(f"{value:.{digits}g}")
    large = abs(rounded) >= 10 ** (digits - 1)
    text = whole(round(rounded)) if large else f"{rounded:#.{digits}g}"
    return f"{text} {unit}".strip()


def whole(n: int) -> str:
    """Write a whole number, thousands apart from 10 000 on.

    Examples
    --------
    >>> whole(1000), whole(20480)
    ('1000', '20 480')
    """
    return f"{n:,}".replace(",", " ") if abs(n) >= 10_000 else str(n)


def count(n: int, noun: str) -> str:
    """Write a number of things.

    Examples
    --------
    >>> count(1, "frame"), count(20, "frame")
    ('1 frame', '20 frames')
    """
    return f"{whole(n)} {noun}" + ("" if n == 1 else "s")


def in_html(text: str) -> str:
    """Escape a sentence of ours; what stands in backticks is code, and no line ends before a %.

    Examples
    --------
    >>> in_html("2 % of <b>, see `--rings`")
    '2&nbsp;% of &lt;b&gt;, see <code>--rings</code>'
    """
    escaped = re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))
    return re.sub(r"(\d) (?=%|DN|\d)", r"\1&nbsp;", escaped)


def thinned(shape: Sequence[int], limit: int, what: str = "picture") -> str:
    """Say that a map has been thinned until no side is longer than a limit, if it has.

    Examples
    --------
    >>> thinned((500, 600), 640), thinned((2048, 1000), 640)
    ('', ' A point of this picture is the mean of 4 x 2.')
    """
    steps = [-(-n // limit) for n in shape]
    if max(steps, default=1) == 1:
        return ""
    return f" A point of this {what} is the mean of {' x '.join(map(str, steps))}."
