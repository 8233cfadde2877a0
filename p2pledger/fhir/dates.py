"""FHIR dates and times as milliseconds since 1970: with the calendar's arithmetic, since pure parts have no clock.

A date without a zone is one of UTC. A date is a span: a year, a month, a day, a second or a millisecond.
"""

import re

from p2pledger.primitives.errors import InvalidInput

DAY_MS = 86_400_000
_TIME = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,3})\d*)?(Z|[+-]\d\d:\d\d))?)?)?", re.ASCII
)


def instants(text: object, where: str) -> tuple[int, int]:
    """(first instant, first instant after it) of a FHIR dateTime of any precision; `where` names it in InvalidInput."""
    match = _TIME.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InvalidInput(f"{where} {text!r} is no date or time")
    year, month, day = int(match[1]), int(match[2] or 1), int(match[3] or 1)
    start = days(year, month, day) * DAY_MS
    if not 1 <= month <= 12 or civil(start // DAY_MS) != (year, month, day):
        raise InvalidInput(f"{where} {text!r} is no day of the calendar")
    if match[2] is None:
        return start, days(year + 1, 1, 1) * DAY_MS
    if match[3] is None:
        return start, days(year + month // 12, month % 12 + 1, 1) * DAY_MS
    if match[4] is None:
        return start, start + DAY_MS
    hour, minute, second = int(match[4]), int(match[5]), int(match[6])
    if hour > 23 or minute > 59 or second > 59:
        raise InvalidInput(f"{where} {text!r} is no time of day")
    at = start + 1000 * (3600 * hour + 60 * minute + second) - _offset_ms(match[8])
    return (at + int(match[7].ljust(3, "0")), at + int(match[7].ljust(3, "0")) + 1) if match[7] else (at, at + 1000)


def _offset_ms(zone: str) -> int:
    if zone == "Z":
        return 0
    minutes = 60 * int(zone[1:3]) + int(zone[4:6])
    return (-1 if zone[0] == "-" else 1) * 60_000 * minutes


def days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the Gregorian calendar; March is the first month, so that leap days come last."""
    y = year - (month <= 2)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return 365 * y + y // 4 - y // 100 + y // 400 + of_year - 719_468


def civil(days: int) -> tuple[int, int, int]:
    """(year, month, day) of a number of days since 1970-01-01."""
    days += 719_468
    era, of_era = divmod(days, 146_097)
    y = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * y + y // 4 - y // 100)
    m = (5 * of_year + 2) // 153
    month = m + 3 if m < 10 else m - 9
    return y + 400 * era + (month <= 2), month, of_year - (153 * m + 2) // 5 + 1
