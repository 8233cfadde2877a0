"""What validators report about keys to a patient's records: one line a report, each naming the one before (F-08).

The access log says what was permitted, these lines whether it was used: who has released how much, and since when. They
end in the same head (`log.LogHead`), so that one proof shows of both that nothing is missing up to its height. A report
is its validator's word; of t that speak of one access at least t − f are honest.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from p2pledger.health import keys
from p2pledger.health.log import EMPTY, LogHead, fitting, numbered
from p2pledger.health.vocabulary import Count
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.crypto import Domain, tagged_hash
from p2pledger.primitives.errors import InvalidInput, ProofError
from p2pledger.primitives.ids import U64, Bytes16, Bytes32, Height, Millis, ValidatorId
from p2pledger.state.view import StateView


class ReleaseLine(Record, frozen=True):
    """A validator's word on how many keys of an access it has released its shares of by now."""

    pid: Bytes16
    sequence: U64
    """From 1."""
    previous: Bytes32
    """Hash of the line before; zeros for the first."""
    height: Height
    time_ms: Millis
    """Of the block with the report; the shares left before it."""
    access_id: Bytes16
    """Of an access, or of a recovery of the patient's old box keys."""
    validator: ValidatorId
    records: Count
    """In all, this report and earlier ones together."""


def line_hash(line: ReleaseLine) -> Bytes32:
    """What the next line and the head name this line by."""
    return tagged_hash(Domain.RELEASE_LINE, encode(line))


def append(line: ReleaseLine, before: LogHead) -> tuple[dict[bytes, bytes | None], LogHead]:
    """(writes, head) after the line, which must follow `before`."""
    assert (line.sequence, line.previous) == (before.releases + 1, before.releases_hash), "a line must follow the last"
    after = replace(before, releases=line.sequence, releases_hash=line_hash(line))
    return {keys.release_line(line.pid, line.sequence): encode(line), keys.log_head(line.pid): encode(after)}, after


def page(pid: bytes, state: StateView, first: int, last: int, bytes_max: int) -> list[bytes]:
    """The canonical bytes of the lines `first` to `last` that fit into so many bytes; the first one always fits."""
    return fitting(numbered(keys.release_lines(pid), state, first, last), bytes_max)


def decode_line(data: bytes) -> ReleaseLine:
    """A line from its canonical bytes; raises InvalidInput."""
    return decode(ReleaseLine, data, limits.STATE_VALUE_BYTES_MAX)


def check_lines(pid: bytes, data: Sequence[bytes], proven: LogHead, after: LogHead = EMPTY) -> list[ReleaseLine]:
    """The lines, if they are exactly those of this patient that lead from `after` to `proven`; raises ProofError.

    With the default these are all reports up to the height at which the head was proven.
    """
    checked = []
    count, previous = after.releases, after.releases_hash
    for item in data:
        try:
            line = decode_line(item)
        except InvalidInput as error:
            raise ProofError(f"report {count + 1} about released keys: {error}") from error
        if line.pid != pid:
            raise ProofError(f"report {count + 1} about released keys is of {line.pid.hex()}, not of {pid.hex()}")
        if (line.sequence, line.previous) != (count + 1, previous):
            raise ProofError(f"report {line.sequence} about released keys does not follow report {count}")
        checked.append(line)
        count, previous = line.sequence, line_hash(line)
    if (count, previous) != (proven.releases, proven.releases_hash):
        raise ProofError(f"the reports about released keys end at {count}, the proven head at {proven.releases}")
    return checked
