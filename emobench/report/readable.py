"""Numbers as people read them."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote

from emobench.metrics.intervals import Comparison
from emobench.report.board import Number

Escape = Callable[[object], str]  # what makes a foreign text harmless in the form that is written

_BY_DIGITS = ("content_loss", "style_loss", "total_loss", "kid")  # of any magnitude: decimals would show zeros


def score(number: Number | None, escape: Escape = str) -> str:
    """0.874 (0.861–0.887)"""
    if number is None:
        return "n/a"
    if number.value is None:
        return f"n/a ({escape(number.reason)})"
    if number.low is None or number.high is None:
        return shown_value(number)
    return f"{shown_value(number)} ({between(shown_value(number, number.low), shown_value(number, number.high))})"


def between(low: str, high: str) -> str:
    """The ends of an interval; a dash would be read as one more minus sign where an end is negative.

    >>> between("0.861", "0.887"), between("−0.043", "0.44")
    ('0.861–0.887', '−0.043\\xa0to\\xa00.44')
    """
    return _to(low, high) if "−" in low + high else f"{low}–{high}"


def _to(low: str, high: str) -> str:
    return f"{low}\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}{high}"


def shown_value(number: Number, value: float | None = None) -> str:
    """A value of a metric alone; None: that of the number itself, which has one."""
    shown = significant if number.metric in _BY_DIGITS else signed
    found = number.value if value is None else value
    assert found is not None
    return shown(found)


_SHARES = ("accuracy", "control", "macro_f1", "weighted_f1", "ece", "memorisation", "understood")


def is_share(metric: str) -> bool:
    """Whether a metric is read in percent: a share of faces, or what is measured on the same scale."""
    return metric.startswith(_SHARES)


def brief(number: Number | None) -> str:
    """97.3 (95.3–99.4): a share in percent, with as many digits as its interval bears."""
    if number is None or number.value is None:
        return "n/a"
    share = is_share(number.metric)
    if number.low is None or number.high is None:
        return _briefly(number.value, share, 1)
    digits = 1 if number.high - number.low < 0.1 else 0
    value, low, high = (_briefly(each, share, digits) for each in (number.value, number.low, number.high))
    return f"{value} ({between(low, high)})"


def _briefly(value: float, share: bool, digits: int) -> str:
    if share:
        shown = f"{100 * value:.{digits}f}"
    elif abs(value) >= 100:
        shown = f"{value:,.0f}"
    else:
        shown = f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"
    return re.sub(r"^-(?=0(\.0+)?$)", "", shown).replace("-", "−")


def cost(number: Number, escape: Escape = str) -> str:
    """A count or a time as people read it."""
    if number.value is None:
        return f"n/a ({escape(number.reason)})"
    if number.metric == "fit_seconds":
        return duration(number.value)
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number.value >= size and number.metric in ("params", "flops"):
            return f"{number.value / size:.3g} {unit}"
    return f"{number.value:,.0f}" if number.value >= 10 else f"{number.value:.2g}"


def duration(seconds: float) -> str:
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def signed(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def significant(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def gap(pair: Comparison) -> str:
    if pair.low is None or pair.high is None:
        return f"{signed(pair.difference)} (no interval: too few faces to resample)"
    return f"{signed(pair.difference)} ({_to(signed(pair.low), signed(pair.high))})"


def rank(places: tuple[int, int] | None, order_only: bool) -> str:
    """1–3; in brackets: a place that is no rank."""
    if places is None:
        return "–"
    best, worst = places
    shown = str(best) if best == worst else f"{best}–{worst}"
    return f"({shown})" if order_only else shown


def address(path: str) -> str:
    """A path as the target of a link, which no name of a file can end."""
    return quote(path, safe="/+,=@~", errors="surrogateescape")
