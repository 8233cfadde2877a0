"""Points in time of the chain, as other systems and people read them; always UTC."""

from datetime import UTC, datetime, timedelta

from p2pledger.primitives.errors import InvalidInput


def instant(milliseconds: int) -> str:
    """As FHIR and XML write it, `2026-11-21T08:00:00.000Z`; raises InvalidInput beyond the year 9999."""
    found = _utc(milliseconds)
    return f"{found:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def day(milliseconds: int) -> str:
    """`2026-11-21`; raises InvalidInput beyond the year 9999."""
    return f"{_utc(milliseconds):%Y-%m-%d}"


def years_before(milliseconds: int, years: int) -> int:
    """The same day so many years earlier; 1 March for 29 February."""
    now = _utc(milliseconds)
    try:
        then = now.replace(year=now.year - years)
    except ValueError:
        then = (now + timedelta(days=1)).replace(year=now.year - years)
    return milliseconds - round((now - then).total_seconds()) * 1000


def _utc(milliseconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(milliseconds // 1000, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidInput(f"{milliseconds} ms after 1970 is no time that a calendar knows") from error
