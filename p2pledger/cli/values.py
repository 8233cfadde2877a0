"""What people type, as values: ids, instants, spans of time, readers, compartments."""

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from p2pledger.client.health import Compartment
    from p2pledger.network.feed_api import Cursor

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SPAN_MS_MAX = 200 * 366 * 86_400_000
ACTOR_KINDS = ("person", "organisation", "role", "group")


class Hex(click.ParamType[bytes]):
    """So many bytes as hexadecimal digits; with several lengths, any of them."""

    name = "hex"

    def __init__(self, *lengths: int) -> None:
        self.lengths = lengths

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        if isinstance(value, bytes):
            return value
        if not re.fullmatch(r"[0-9a-fA-F]*", value) or len(value) not in {2 * length for length in self.lengths}:
            digits = " or ".join(str(2 * length) for length in self.lengths)
            self.fail(f"{value!r} is not {digits} hexadecimal digits", param, ctx)
        return bytes.fromhex(value)


class Span(click.ParamType[int]):
    """A span of time like 30m, 24h or 7d, in milliseconds."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", value)
        milliseconds = int(match[1]) * _UNITS_MS[match[2]] if match else 0
        if not 0 < milliseconds <= _SPAN_MS_MAX:
            self.fail(f"{value!r} is not a span of time like 90s, 30m, 24h or 7d", param, ctx)
        return milliseconds


class Instant(click.ParamType[int]):
    """A point in time with its zone, like 2026-11-22T08:00:00Z, in milliseconds."""

    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a time like 2026-11-22T08:00:00Z", param, ctx)
        if found.tzinfo is None:
            self.fail(f"{value!r} has no time zone; end it with Z or an offset like +02:00", param, ctx)
        return int(found.timestamp() * 1000)


class Place(click.ParamType["Cursor"]):
    """HEIGHT:INDEX, a place in the chain."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Cursor":
        from p2pledger.network.feed_api import Cursor
        from p2pledger.primitives.ids import Height

        if isinstance(value, Cursor):
            return value
        match = re.fullmatch(r"([0-9]{1,18}):([0-9]{1,9})", value)
        if match is None:
            self.fail(f"{value!r} is not a place like 120:0, a height and the number of a transaction", param, ctx)
        return Cursor(Height(int(match[1])), int(match[2]))


class RecordName(click.ParamType[bytes]):
    """A record as BATCH/INDEX or by its handle; the handle."""

    name = "record"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        from p2pledger.health.operations import record_handle

        if isinstance(value, bytes):
            return value
        match = re.fullmatch(r"([0-9a-fA-F]{32})/([0-9]{1,9})", value)
        if match is not None:
            return record_handle(bytes.fromhex(match[1]), int(match[2]))
        return Hex(16).convert(value, param, ctx)


class MonthsValue(click.ParamType[tuple[int, int]]):
    """Months like 2022-01..2022-12, both included, or a single one."""

    name = "months"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        parts = value.split("..")
        found = [re.fullmatch(r"(19|2\d)(\d\d)-(0[1-9]|1[0-2])", part) for part in parts]
        months = [int(part.replace("-", "")) for part, match in zip(parts, found, strict=True) if match is not None]
        if len(parts) > 2 or len(months) != len(parts) or months[0] > months[-1]:
            self.fail(f"{value!r} is not a month like 2022-03 or a range like 2022-01..2022-12", param, ctx)
        return months[0], months[-1]


class CompartmentValue(click.ParamType["Compartment"]):
    """HANDLE or HANDLE=NAME, as `record list` shows them."""

    name = "compartment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "Compartment":
        from p2pledger.client.health import Compartment

        if isinstance(value, Compartment):
            return value
        handle, _, name = value.partition("=")
        return Compartment(Hex(16).convert(handle, param, ctx), name or None)


def moment(milliseconds: int) -> str:
    """A point in time for people, in UTC."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{milliseconds} ms"
