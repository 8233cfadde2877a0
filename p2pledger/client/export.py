"""The access log as a file: people read the lines, anybody verifies them with nothing but the chain id (F-08).

JSON in one spelling. What people read is written from the exact bytes beside it, and verifying writes it again: so a
changed byte anywhere, in the readable part too, is a file that does not verify.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from p2pledger.chain.genesis import GENESIS_BYTES_MAX, Founding
from p2pledger.client.verify import VerifiedLog, check_founding, check_line, check_log
from p2pledger.consensus.anchor import Anchor, ReceiptEvidence
from p2pledger.health import release_log
from p2pledger.health.log import LogLine
from p2pledger.network.api import LogReply
from p2pledger.primitives.codec import Record, decode, encode
from p2pledger.primitives.errors import Code, InvalidInput, ProofError
from p2pledger.primitives.ids import U64, Bytes16, ChainId, Height
from p2pledger.state.tree import StateProof

FORMAT = "p2pledger/access-log/1"
LINE_FORMAT = "p2pledger/access-log-line/1"
_FILE_BYTES_MAX = 256 * 1024 * 1024
"""Some 200,000 lines."""
_PART_BYTES_MAX = 8 * 1024 * 1024


class Export(Record, frozen=True):
    """The exact parts of an export, as a node answered them."""

    genesis: bytes
    pid: bytes
    height: Height
    lines: tuple[bytes, ...]
    head: bytes | None
    proof: StateProof
    anchor: Anchor
    releases: tuple[bytes, ...] = ()


def of_reply(reply: LogReply, founding: Founding) -> Export:
    """What a file is made of. Lines after the checkpoint are not proven and stay out."""
    genesis, log = encode(founding.signed), (reply.pid, reply.height, reply.lines, reply.head)
    return Export(genesis, *log, reply.proof, reply.anchor, reply.releases)


def write_export(export: Export, chain: ChainId) -> bytes:
    """The file, verified before anybody relies on it; raises ProofError."""
    founding, log = _check(export, chain)
    return _dump(export, founding, log)


def verify_export(data: bytes, chain: ChainId) -> VerifiedLog:
    """What the file proves about a patient's log on the chain with this id; needs no node.

    Raises ProofError that begins with the step which fails: text, genesis, anchor, state root, state proof, lines,
    releases.
    """
    export = read_export(data)
    founding, log = _check(export, chain)
    if _dump(export, founding, log) != data:
        raise ProofError("text: what the file says for people is not what its bytes say")
    return log


def read_export(data: bytes) -> Export:
    """The parts of a file, nothing about them verified yet; raises ProofError."""
    if len(data) > _FILE_BYTES_MAX:
        raise ProofError(f"text: file of {len(data)} bytes, the limit is {_FILE_BYTES_MAX}")
    try:
        parts: Mapping[str, Any] = json.loads(data)
        if parts["format"] != FORMAT:
            raise ProofError(f"text: format {parts['format']!r}, this version verifies {FORMAT!r}")
        proof = parts["proof"]
        head = proof["head"]
        return Export(
            bytes.fromhex(proof["genesis"]),
            bytes.fromhex(parts["pid"]),
            Height(int(parts["height"])),
            tuple(bytes.fromhex(line["bytes"]) for line in parts["lines"]),
            None if head is None else bytes.fromhex(head),
            decode(StateProof, bytes.fromhex(proof["state"]), _PART_BYTES_MAX),
            decode(Anchor, bytes.fromhex(proof["anchor"]), _PART_BYTES_MAX),
            tuple(bytes.fromhex(report["bytes"]) for report in parts["releases"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidInput) as error:
        raise ProofError(f"text: not an export of an access log: {error}") from error


class _Line(Record, frozen=True):
    """The exact parts of the export of a line."""

    genesis: bytes
    pid: Bytes16
    sequence: U64
    line: bytes
    evidence: ReceiptEvidence


def write_line(founding: Founding, pid: bytes, sequence: int, line: bytes, evidence: ReceiptEvidence) -> bytes:
    """One line as a file that anybody can verify without the others; verified before; raises ProofError."""
    return _dump_line(_Line(encode(founding.signed), pid, sequence, line, evidence), founding)


def verify_line(data: bytes, chain: ChainId) -> LogLine:
    """The line that the file proves to be in a patient's log on this chain; needs no node. Raises ProofError."""
    if len(data) > 2 * _PART_BYTES_MAX:
        raise ProofError(f"text: file of {len(data)} bytes, the limit is {2 * _PART_BYTES_MAX}")
    try:
        parts: Mapping[str, Any] = json.loads(data)
        if parts["format"] != LINE_FORMAT:
            raise ProofError(f"text: format {parts['format']!r}, this version verifies {LINE_FORMAT!r}")
        found = decode(_Line, bytes.fromhex(parts["proof"]), _PART_BYTES_MAX)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidInput) as error:
        raise ProofError(f"text: not an export of a line: {error}") from error
    founding = check_founding(found.genesis, chain)
    if _dump_line(found, founding) != data:
        raise ProofError("text: what the file says for people is not what its bytes say")
    return check_line(founding, found.pid, found.sequence, found.line, found.evidence)


def is_line(data: bytes) -> bool:
    """Whether a file says that it is the export of a line."""
    try:
        parts = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(parts, dict) and parts.get("format") == LINE_FORMAT


def _dump_line(found: _Line, founding: Founding) -> bytes:
    line = check_line(founding, found.pid, found.sequence, found.line, found.evidence)
    names = {card.organisation: card.name for card in founding.genesis.cards}
    document = {
        "format": LINE_FORMAT,
        "says": f"Line {line.sequence} of the access log of this patient. What other lines there are, it does not say.",
        "chain": founding.chain.hex(),
        "pid": found.pid.hex(),
        "reads": _readable(line, names),
        "proof": encode(found).hex(),
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def _check(export: Export, chain: ChainId) -> tuple[Founding, VerifiedLog]:
    if len(export.genesis) > GENESIS_BYTES_MAX:
        raise ProofError(f"genesis: {len(export.genesis)} bytes, the limit is {GENESIS_BYTES_MAX}")
    founding = check_founding(export.genesis, chain)
    proven = (export.head, export.proof, export.anchor)
    return founding, check_log(founding, export.pid, export.height, export.lines, *proven, export.releases)


def _dump(export: Export, founding: Founding, log: VerifiedLog) -> bytes:
    names = {card.organisation: card.name for card in founding.genesis.cards}
    document = {
        "format": FORMAT,
        "says": (
            f"All {len(log.lines)} decisions about the records of this patient up to height {log.height}, "
            f"proven by a block of {_time(log.proven_ms)}."
        ),
        "chain": founding.chain.hex(),
        "pid": export.pid.hex(),
        "height": export.height,
        "lines": [
            {"reads": {**_readable(line, names), "keys released": log.released.told(line)}, "bytes": data.hex()}
            for line, data in zip(log.lines, export.lines, strict=True)
        ],
        "releases": [{"reads": _reported(data), "bytes": data.hex()} for data in export.releases],
        "proof": {
            "head": None if export.head is None else export.head.hex(),
            "state": encode(export.proof).hex(),
            "anchor": encode(export.anchor).hex(),
            "genesis": export.genesis.hex(),
        },
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def _readable(line: LogLine, names: Mapping[bytes, str]) -> dict[str, object]:
    decision = "ALLOWED" if line.decision == Code.OK else f"DENIED ({code_name(line.decision)})"
    return {
        "number": line.sequence,
        "when": _time(line.time_ms),
        "who": names.get(line.organisation, line.organisation.hex()),
        "person": None if line.actor is None else line.actor.hex(),
        "purpose": line.purpose,
        "answer": decision,
        "basis": line.basis,
        "consent": None if line.consent_id is None else line.consent_id.hex(),
        "records": line.n_records,
        "record list": line.scope_commit.hex(),
        "reason": None if line.reason_commit is None else line.reason_commit.hex(),
        "compartments": [handle.hex() for handle in line.compartments],
        "height": line.height,
        "transaction": line.transaction.hex(),
        "access": line.access_id.hex(),
    }


def _reported(data: bytes) -> dict[str, object]:
    """A report, checked already."""
    line = release_log.decode_line(data)
    return {
        "number": line.sequence,
        "when": _time(line.time_ms),
        "validator": line.validator.hex(),
        "access": line.access_id.hex(),
        "records": line.records,
        "height": line.height,
    }


def code_name(number: int) -> str:
    """The name of a code, or its number where this version does not know it."""
    return Code(number).name if number in Code.__members__.values() else str(number)


def _time(milliseconds: int) -> str:
    try:
        return datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{milliseconds} ms"
