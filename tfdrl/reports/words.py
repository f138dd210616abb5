"""How a page writes numbers."""

from __future__ import annotations

import math


def number(value: float | None) -> str:
    """Three figures, or all of those before the point: 12,345; 0.0123; "" for None."""
    if value is None or not math.isfinite(value):
        return ""
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size >= 2:
        return f"{value:,.0f}"
    return f"{value:.{2 - size}f}" if size > -4 else f"{value:.1e}"


def share(value: float | None) -> str:
    """0.284 -> "28 %"; "" for None."""
    return "" if value is None else f"{100 * value:.0f} %"


def megabytes(value: float | None) -> str:
    """152.7 -> "153 MB"; 2500 -> "2.5 GB"; "" for None."""
    if value is None:
        return ""
    return f"{value:,.0f} MB" if value < 1000 else f"{value / 1000:,.1f} GB"


def byte_rate(mb_per_second: float | None) -> str:
    """0.0038 -> "3.8 kB/s"; "" for None."""
    if mb_per_second is None:
        return ""
    rate, unit = mb_per_second * 1e6, "B/s"
    for larger in ("kB/s", "MB/s", "GB/s"):
        if rate < 1000:
            break
        rate, unit = rate / 1000, larger
    return f"{number(rate)} {unit}" if rate >= 1 else "0 B/s"


def duration(secs: float | None) -> str:
    """75.3 -> "1:15"; "" for None."""
    if secs is None:
        return ""
    minutes, seconds = divmod(round(secs), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
