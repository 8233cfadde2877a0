"""What the node says about itself: one event a line, and never a word about a patient (F-29, T37).

Events have snake_case names in the past tense (`block_committed`) and bound fields. Whoever writes a log line may make
a mistake, or repeat what an attacker sent; so the last processor before the renderer takes out what must not be there.
"""

import logging
import re
import sys
import traceback
from collections.abc import Mapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from p2pledger.primitives.errors import P2PLedgerError

TEXT_MAX = 200
ITEMS_MAX = 32
DEPTH_MAX = 4
FRAMES_MAX = 20

_EVENT = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+|[a-z][a-z0-9]*")
_HEX_RUN = re.compile(r"[0-9A-Fa-f]{32,}")
_KEY = re.compile(r"[a-z][a-z0-9_]{0,47}")
_PERSONAL = frozenset(
    """
    patient pid person subject wallet name names family given surname firstname lastname birth birthdate dob
    address street city postcode zip phone telecom email mail ssn mrn identifier gender note text narrative
    comment display diagnosis condition allergy observation medication resource bundle record records fhir
    payload body operation operations plaintext content secret seed password passphrase token credential private
    share shares capsule salt
    """.split()  # noqa: SIM905 - a list of words reads best as words
)
REDACTED = "[redacted]"

Level = Literal["debug", "info", "warning", "error"]


def configure_logs(level: Level, form: Literal["json", "console"], stream: TextIO | None = None) -> None:
    """Send every structlog logger of this process through the redaction to `stream` (stderr)."""
    render: Any = (
        structlog.processors.JSONRenderer(sort_keys=False, ensure_ascii=True, default=_unknown)
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            redact,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=stream is None,
    )


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The event without personal values, secrets, control characters and anything long. A structlog processor."""
    clean: EventDict = {}
    for key, value in event.items():
        if key == "event":
            clean["event"] = _event_name(value)
        elif key == "exc_info":
            clean["error"] = _error(value)
        elif not isinstance(key, str) or not _KEY.fullmatch(key):
            clean["unnamed"] = REDACTED
        else:
            clean[key] = REDACTED if is_personal(key) else _clean(value, DEPTH_MAX)
    return clean


def is_personal(key: str) -> bool:
    """Whether a field of this name is taken out whatever it holds: by any word of the name."""
    return key in _PERSONAL or any(word in _PERSONAL for word in key.lower().split("_"))


def _event_name(value: object) -> str:
    """Prose in place of a name may carry anything, so it is not repeated."""
    if isinstance(value, str) and len(value) <= 64 and _EVENT.fullmatch(value):
        return value
    return "event_without_a_proper_name"


def _clean(value: object, depth: int) -> Any:
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return _text(value)
        case bytes() | bytearray() | memoryview():
            return bytes(value[:4]).hex()
        case BaseException():
            return _error(value)
        case Mapping() if depth:
            return {
                _text(str(key)): REDACTED if is_personal(str(key)) else _clean(inner, depth - 1)
                for key, inner in list(value.items())[:ITEMS_MAX]
            }
        case list() | tuple() if depth:
            return [_clean(inner, depth - 1) for inner in value[:ITEMS_MAX]]
        case _:
            return f"[{type(value).__name__}]"  # a repr could show fields of anything


def _text(value: str) -> str:
    """Printable, one line, short; long hexadecimal is a key, an id or a secret: eight digits tell them apart."""
    shortened = _HEX_RUN.sub(lambda run: run[0][:8] + "…", value[: 4 * TEXT_MAX])
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shortened)
    return printable if len(printable) <= TEXT_MAX else printable[: TEXT_MAX - 1] + "…"


def _error(value: object) -> Any:
    """Kind and place of an error; its words only where we chose them (others may quote what they were given)."""
    if value is True:
        value = sys.exc_info()[1]
    elif isinstance(value, tuple):
        value = value[1] if len(value) == 3 else None
    if not isinstance(value, BaseException):
        return None
    shown: dict[str, Any] = {"kind": type(value).__name__}
    if isinstance(value, P2PLedgerError):
        shown["reason"] = _text(str(value))
    frames = traceback.extract_tb(value.__traceback__)[-FRAMES_MAX:]
    if frames:
        shown["at"] = [f"{frame.filename.rpartition('p2pledger/')[2]}:{frame.lineno}:{frame.name}" for frame in frames]
    if isinstance(value, BaseExceptionGroup):
        shown["inner"] = [_error(inner) for inner in value.exceptions[:8]]
    return shown


def _unknown(value: object) -> str:
    return f"[{type(value).__name__}]"
