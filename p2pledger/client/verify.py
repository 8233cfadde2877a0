"""What a client believes, and why: every answer of a node is traced back to the signatures of the founding members.

Pure. The steps are functions of their own, so that whoever doubts one can run the others without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from p2pledger.chain.block import Header
from p2pledger.chain.genesis import Founding, SignedGenesis, parse_genesis
from p2pledger.client.releases import NOTHING_RELEASED, Releases
from p2pledger.consensus.anchor import Anchor, ReceiptEvidence, check_anchor, check_receipt
from p2pledger.health import release_log
from p2pledger.health.events import AccessDecided, decode_event
from p2pledger.health.keys import log_head
from p2pledger.health.log import EMPTY, LogHead, LogLine, check_lines, decode_head, decode_line, line_hash
from p2pledger.network.api import LineReply, LogReply, StateReply
from p2pledger.primitives.errors import InvalidInput, ProofError
from p2pledger.primitives.ids import ChainId, Height, Millis
from p2pledger.state.tree import StateProof, check_state_proof


@dataclass(frozen=True, slots=True)
class VerifiedLog:
    """A patient's access log, complete up to a checkpoint."""

    pid: bytes
    height: Height
    """Of the checkpoint: nothing that happened up to here is missing."""
    proven_ms: Millis
    """Time of the block that carries the proof: how fresh it is."""
    lines: tuple[LogLine, ...]
    newer: tuple[LogLine, ...] = ()
    """Lines after the checkpoint, as the node says: linked to the proven ones, but more could have been left out."""
    released: Releases = NOTHING_RELEASED
    """What validators had reported by the checkpoint; as complete as the lines."""


def check_founding(genesis: bytes, chain: ChainId) -> Founding:
    """The founding that every member signed and whose hash is `chain`; raises ProofError."""
    try:
        signed: SignedGenesis = parse_genesis(genesis)
    except InvalidInput as error:
        raise ProofError(f"genesis: {error}") from error
    founding = Founding(signed)
    if founding.chain != chain:
        raise ProofError(f"genesis: it founds chain {founding.chain.hex()}, expected was {chain.hex()}")
    return founding


def check_final(anchor: Anchor, founding: Founding) -> Header:
    """The anchor's first header, final because a quorum signed for it; raises ProofError."""
    try:
        return check_anchor(anchor, founding.chain, founding.validators)
    except ProofError as error:
        raise ProofError(f"anchor: {error}") from error


def state_root_at(header: Header, height: Height) -> bytes:
    """The state root of a checkpoint, as a later header carries it; raises ProofError where this one does not."""
    for checkpoint in header.state_roots:
        if checkpoint.height == height:
            return checkpoint.root
    carried = ", ".join(str(checkpoint.height) for checkpoint in header.state_roots) or "none"
    raise ProofError(
        f"state root: header {header.height} carries no root of checkpoint {height} (it carries: {carried})"
    )


def check_value(proof: StateProof, key: bytes, value: bytes | None, root: bytes) -> None:
    """Raises ProofError unless the state under `root` says `value` at `key`; None: proven to be absent."""
    try:
        check_state_proof(proof, key, value, root)
    except ProofError as error:
        raise ProofError(f"state proof: {error}") from error


def check_log_lines(pid: bytes, lines: Sequence[bytes], head: bytes | None) -> list[LogLine]:
    """The lines, if they are exactly those that lead to the head; raises ProofError."""
    try:
        return check_lines(pid, lines, EMPTY if head is None else decode_head(head))
    except (ProofError, InvalidInput) as error:
        raise ProofError(f"lines: {error}") from error


def check_releases(pid: bytes, reports: Sequence[bytes], head: bytes | None) -> list[release_log.ReleaseLine]:
    """The reports about released keys, if they are exactly those that lead to the head; raises ProofError."""
    try:
        return release_log.check_lines(pid, reports, EMPTY if head is None else decode_head(head))
    except (ProofError, InvalidInput) as error:
        raise ProofError(f"releases: {error}") from error


def check_log(
    founding: Founding,
    pid: bytes,
    height: Height,
    lines: Sequence[bytes],
    head: bytes | None,
    proof: StateProof,
    anchor: Anchor,
    reports: Sequence[bytes] = (),
) -> VerifiedLog:
    """All of it: quorum -> header -> state root -> head -> lines and reports. Raises ProofError naming the step."""
    header = check_final(anchor, founding)
    check_value(proof, log_head(pid), head, state_root_at(header, height))
    checked = tuple(check_log_lines(pid, lines, head))
    released = Releases.of_lines(check_releases(pid, reports, head), founding.validators)
    return VerifiedLog(pid, height, header.time_ms, checked, released=released)


@dataclass(frozen=True, slots=True)
class LogPage:
    """What a reply shows of a log that may be longer than a reply."""

    reached: LogHead
    """Where the log stands after the page's last line and report."""
    is_last: bool
    """Whether that is its proven head."""


def check_log_page(reply: LogReply, founding: Founding, pid: bytes, after: LogHead = EMPTY) -> LogPage:
    """A page whose lines follow `after` and do not contradict the proven head; raises ProofError.

    Only all pages together show that no line is missing (`check_log_reply`).
    """
    if reply.pid != pid:
        raise ProofError(f"lines: the answer is about {reply.pid.hex()}, asked was {pid.hex()}")
    header = check_final(reply.anchor, founding)
    check_value(reply.proof, log_head(pid), reply.head, state_root_at(header, reply.height))
    try:
        head = EMPTY if reply.head is None else decode_head(reply.head)
        reached = after
        if reply.lines:
            end = after.count + len(reply.lines)
            reached = replace(reached, count=end, hash=line_hash(decode_line(reply.lines[-1])))
            check_lines(pid, reply.lines, reached, after)
        if reply.releases:
            last = release_log.line_hash(release_log.decode_line(reply.releases[-1]))
            reached = replace(reached, releases=after.releases + len(reply.releases), releases_hash=last)
            release_log.check_lines(pid, reply.releases, reached, after)
    except (ProofError, InvalidInput) as error:
        raise ProofError(f"lines: {error}") from error
    if reached == head:
        return LogPage(reached, True)
    if reached == after or not _is_before(reached, head):
        raise ProofError(
            f"lines: they end at line {reached.count}, the proven head at line {head.count}; "
            f"at report {reached.releases} about released keys, the head at report {head.releases}"
        )
    return LogPage(reached, False)


def _is_before(reached: LogHead, head: LogHead) -> bool:
    """Whether both chains may still lead to the head: each ends below it, or is it."""
    lines = reached.count < head.count or (reached.count, reached.hash) == (head.count, head.hash)
    ended = (reached.releases, reached.releases_hash) == (head.releases, head.releases_hash)
    return lines and (reached.releases < head.releases or ended)


def check_line(founding: Founding, pid: bytes, sequence: int, line: bytes, evidence: ReceiptEvidence) -> LogLine:
    """One line, proven by the receipt of its transaction without any other line (F-08); raises ProofError."""
    try:
        executed = check_receipt(evidence, founding.chain, founding.validators)
        events = [decode_event(data) for data in executed.known]
        found = decode_line(line)
    except (ProofError, InvalidInput) as error:
        raise ProofError(f"line {sequence}: {error}") from error
    decided = [event for event in events if isinstance(event, AccessDecided)]
    if len(decided) != 1:
        raise ProofError(f"line {sequence}: transaction {executed.receipt.transaction.hex()} decided no access")
    named = (decided[0].pid, decided[0].sequence, decided[0].line_hash)
    if named != (pid, sequence, line_hash(found)):
        raise ProofError(
            f"line {sequence} of pid {pid.hex()}: the receipt names line {named[1]} of pid {named[0].hex()}, "
            f"with hash {named[2].hex()}"
        )
    return found


def check_log_reply(reply: LogReply, founding: Founding, pid: bytes) -> VerifiedLog:
    """A node's answer about a log, with the newer lines linked to the proven ones; raises ProofError."""
    if reply.pid != pid:
        raise ProofError(f"lines: the answer is about {reply.pid.hex()}, asked was {pid.hex()}")
    log = check_log(founding, pid, reply.height, reply.lines, reply.head, reply.proof, reply.anchor, reply.releases)
    newer = _check_newer(pid, reply.newer, log.lines)
    return VerifiedLog(pid, log.height, log.proven_ms, log.lines, tuple(newer), log.released)


def _check_newer(pid: bytes, newer: Sequence[bytes], proven: Sequence[LogLine]) -> list[LogLine]:
    if not newer:
        return []
    after = LogHead(proven[-1].sequence, line_hash(proven[-1])) if proven else EMPTY
    try:
        last = decode_line(newer[-1])
        return check_lines(pid, newer, LogHead(after.count + len(newer), line_hash(last)), after)
    except (ProofError, InvalidInput) as error:
        raise ProofError(f"newer lines: {error}") from error


def check_state_reply(reply: StateReply, founding: Founding, key: bytes) -> bytes | None:
    """The value of a key at the reply's checkpoint, None for a proven absence; raises ProofError (F-40)."""
    header = check_final(reply.anchor, founding)
    check_value(reply.proof, key, reply.value, state_root_at(header, reply.height))
    return reply.value


# As a client asks


def proven_page(founding: Founding, pid: bytes, after: LogHead, reply: LogReply) -> tuple[LogReply, LogPage]:
    """A page of a log with the reply that it came in; raises ProofError."""
    return reply, check_log_page(reply, founding, pid, after)


def proven_line(founding: Founding, pid: bytes, sequence: int, reply: LineReply) -> LineReply:
    """The reply, if its line is the one that was asked for; raises ProofError."""
    check_line(founding, pid, sequence, reply.line, reply.evidence)
    return reply


def checked_state(founding: Founding, key: bytes, reply: StateReply) -> StateReply:
    """The answer itself, verified, for whoever hands its proof on; raises ProofError."""
    check_state_reply(reply, founding, key)
    return reply


def proven_state(founding: Founding, key: bytes, reply: StateReply) -> tuple[Height, bytes | None]:
    """(checkpoint, value) of a key; raises ProofError."""
    return reply.height, check_state_reply(reply, founding, key)
