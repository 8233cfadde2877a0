"""A patient's access log: one line a decision, each naming the hash of the one before.

The head, which stands in the state under its own key, has the count and the last hash. Who holds the lines and a
proof of the head knows that none is missing, added or changed up to the height of the proof. The same head ends a
second chain of lines: what validators report of the keys that they have released for these accesses (`release_log`).
"""

from collections.abc import Iterable, Iterator, Sequence

from p2pledger.health import keys
from p2pledger.health.events import BasisKind
from p2pledger.health.purposes import Purpose
from p2pledger.health.vocabulary import Compartments, Labels
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.crypto import Domain, tagged_hash
from p2pledger.primitives.errors import InvalidInput, ProofError
from p2pledger.primitives.ids import U64, AccountKey, Bytes16, Bytes32, Height, Millis, TransactionId
from p2pledger.state.view import StateView


class LogLine(Record, frozen=True):
    """Who asked for what, when and why, and what the answer was."""

    pid: Bytes16
    sequence: U64
    """From 1."""
    previous: Bytes32
    """Hash of the line before; zeros for the first."""
    height: Height
    time_ms: Millis
    transaction: TransactionId
    access_id: Bytes16
    reader: AccountKey
    """The key that signed the request."""
    actor: Bytes16 | None
    """The identity behind it; None where the directory knew none."""
    organisation: Bytes16
    """As the request named it; proven where the decision is OK."""
    purpose: Purpose
    decision: int
    """A `Code`; OK = ALLOWED."""
    basis: BasisKind
    consent_id: Bytes16 | None
    compartments: Compartments
    labels: Labels
    """Sensitive labels among what was asked for."""
    n_records: U64
    scope_commit: Bytes32
    """Opens to the list of records (F-08)."""
    reason_commit: Bytes32 | None
    """Opens to the written reason, where there was one."""


class LogHead(Record, frozen=True):
    """Where a log ends."""

    count: U64
    hash: Bytes32
    """Of the last line; zeros where there is none."""
    releases: U64 = 0
    """How many lines the reports about released keys have (`release_log`)."""
    releases_hash: Bytes32 = bytes(32)
    """Of the last one of them."""


EMPTY = LogHead(0, bytes(32))


def line_hash(line: LogLine) -> Bytes32:
    """What the next line and the head name this line by."""
    return tagged_hash(Domain.LOG_LINE, encode(line))


def head(pid: bytes, state: StateView) -> LogHead:
    """Where a patient's log ends now."""
    data = state.get(keys.log_head(pid))
    return EMPTY if data is None else decode_head(data)


def append(line: LogLine, before: LogHead) -> tuple[dict[bytes, bytes | None], Bytes32]:
    """The writes that add `line`, which must follow the head, and its hash."""
    assert (line.sequence, line.previous) == (before.count + 1, before.hash), "a log line must follow the last one"
    data = encode(line)
    hashed = tagged_hash(Domain.LOG_LINE, data)
    after = LogHead(line.sequence, hashed, before.releases, before.releases_hash)
    return {keys.log_line(line.pid, line.sequence): data, keys.log_head(line.pid): encode(after)}, hashed


def lines(pid: bytes, state: StateView, first: int = 1, last: int | None = None) -> list[bytes]:
    """The canonical bytes of a patient's lines `first` to `last`, both included; to the end where `last` is None."""
    return list(_lines(pid, state, first, last))


def page(pid: bytes, state: StateView, first: int, bytes_max: int) -> list[bytes]:
    """The lines from `first` on that fit into so many bytes together; the first one always fits."""
    return fitting(_lines(pid, state, first, None), bytes_max)


def fitting(lines: Iterable[bytes], bytes_max: int) -> list[bytes]:
    """Those that fit into so many bytes together, one at least where there is any."""
    found: list[bytes] = []
    room = bytes_max
    for data in lines:
        room -= len(data)
        if found and room < 0:
            break
        found.append(data)
    return found


def line_at(pid: bytes, sequence: int, state: StateView) -> bytes | None:
    """The canonical bytes of one line."""
    return state.get(keys.log_line(pid, sequence))


def _lines(pid: bytes, state: StateView, first: int, last: int | None) -> Iterator[bytes]:
    return numbered(keys.log_lines(pid), state, first, last)


def numbered(prefix: bytes, state: StateView, first: int, last: int | None) -> Iterator[bytes]:
    """What stands under a prefix and the sequences `first` to `last`, both included; to the end where that is None."""
    for key, data in state.scan(prefix, keys.log_sequence(first)):
        if last is not None and int.from_bytes(key[-8:], "big") > last:
            return
        yield data


def decode_line(data: bytes) -> LogLine:
    """A line from its canonical bytes; raises InvalidInput."""
    return decode(LogLine, data, limits.STATE_VALUE_BYTES_MAX)


def decode_head(data: bytes) -> LogHead:
    """A head from its state value; raises InvalidInput."""
    return decode(LogHead, data, limits.STATE_VALUE_BYTES_MAX)


def check_lines(pid: bytes, data: Sequence[bytes], proven: LogHead, after: LogHead = EMPTY) -> list[LogLine]:
    """The lines, if they are exactly those of this patient that lead from `after` to `proven`; raises ProofError.

    With the default these are all lines that were ever written up to the height at which the head was proven.
    """
    checked = []
    count, previous = after.count, after.hash
    for item in data:
        try:
            line = decode_line(item)
        except InvalidInput as error:
            raise ProofError(f"line {count + 1} of the access log: {error}") from error
        if line.pid != pid:
            raise ProofError(f"line {count + 1} is of the log of {line.pid.hex()}, not of {pid.hex()}")
        if (line.sequence, line.previous) != (count + 1, previous):
            raise ProofError(f"line {line.sequence} of the access log does not follow line {count}")
        checked.append(line)
        count, previous = line.sequence, line_hash(line)
    if (count, previous) != (proven.count, proven.hash):
        raise ProofError(f"the access log ends at line {count}, the proven head at line {proven.count}")
    return checked
