"""Durations (``90s 45m 2h 1d``) and sizes (``512MiB 8GiB 20GB``): read and shown in one way everywhere."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,7})s)?")
_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?) ?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)")
_SIZE_FACTOR = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
MIB = 2**20
MAX_DURATION_SECONDS = 30 * 86_400
"""No limit in Tatin is longer than thirty days: a longer one is a slip of the pen."""


def parse_duration(text: str) -> int:
    """Seconds of ``"1h30m"``, ``"90s"``, ``"2d"``.

    Raises:
        ValueError: not a duration, nothing at all, or longer than thirty days. The message names what is accepted.
    """
    match = _DURATION.fullmatch(text) if text else None
    if match is None or not any(match.groups()):
        raise ValueError(f"{text[:40]!r} is not a duration; write it as 90s, 45m, 2h or 1h30m")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    total = days * 86_400 + hours * 3_600 + minutes * 60 + seconds
    if total > MAX_DURATION_SECONDS:
        raise ValueError(f"{text!r} is longer than 30d, the longest that is accepted")
    return total


def parse_size(text: str) -> int:
    """Bytes of ``"512MiB"``, ``"8GiB"``, ``"20GB"``.

    Raises:
        ValueError: not a size with a unit. The message names what is accepted.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a size; write it with its unit, as 512MiB, 8GiB or 20GB")
    return int(float(match[1]) * _SIZE_FACTOR[match[2]])


def format_duration(seconds: float) -> str:
    """``0.4s``, ``12s``, ``3m20s``, ``2h05m``, ``3d4h``: two units at most, as a person would say it."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    total = round(seconds)
    days, rest = divmod(total, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, secs = divmod(rest, 60)
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes:02d}m"
    if minutes:
        return f"{minutes}m{secs:02d}s"
    return f"{secs}s"


def format_size(size_bytes: int) -> str:
    """``812 B``, ``3.4 KiB``, ``1.2 GiB``."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
