#!/usr/bin/env python3
"""Verify an export of a patient's records without the ledger and without its software.

    python3 verify.py CHAIN_ID [FOLDER] [--log]

CHAIN_ID is what you trust: 64 hexadecimal digits, the hash of the consortium's genesis, from its web page or from
any member. Everything else is in the folder, and is believed only as far as it leads to that hash:

1. every file is the one that SHA256SUMS lists (this finds accidents; what follows finds lies),
2. every founding member has signed the genesis, whose hash is CHAIN_ID,
3. headers are linked by their hashes, and a quorum of the founders' validators has signed the last one,
4. the header holds a root of the state, which holds each batch of records and the end of the access log,
5. each record's bytes are those that its custodian committed to when it was taken in, in a batch of this patient,
6. the access log has all lines up to its end, each naming the hash of the one before; so do the validators' reports on
   keys that they have released.

With --log the access log is printed. That the folder has all batches of the patient it does not show. Needs Python 3.11
and PyNaCl (pip install pynacl) for the signatures, nothing else.
"""

import hashlib
import json
import sys
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

FORMAT = "p2pledger/patient-export/1"


class Wrong(Exception):
    """The export does not show what it claims."""


def demand(holds: bool, what: str) -> None:
    if not holds:
        raise Wrong(what)


# Bytes


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def tagged(purpose: bytes, data: bytes) -> bytes:
    return sha256(bytes([len(purpose)]) + purpose + data)


def pack(value: Any) -> bytes:
    """The one spelling of a value in MessagePack."""
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        demand(0 <= value < 2**64, f"number {value}")
        if value < 0x80:
            return bytes([value])
        size = next(size for size in (1, 2, 4, 8) if value < 256**size)
        return bytes([0xCB + size.bit_length()]) + value.to_bytes(size, "big")
    if isinstance(value, bytes):
        size = next(size for size in (1, 2, 4) if len(value) < 256**size)
        return bytes([0xC3 + size.bit_length()]) + len(value).to_bytes(size, "big") + value
    if isinstance(value, str):
        text = value.encode()
        if len(text) < 32:
            return bytes([0xA0 + len(text)]) + text
        size = next(size for size in (1, 2, 4) if len(text) < 256**size)
        return bytes([0xD8 + size.bit_length()]) + len(text).to_bytes(size, "big") + text
    inner = b"".join(pack(item) for item in value)
    if len(value) < 16:
        return bytes([0x90 + len(value)]) + inner
    size = 2 if len(value) < 65536 else 4
    return bytes([0xDB + size.bit_length() - 1]) + len(value).to_bytes(size, "big") + inner


def unpack(data: bytes) -> Any:
    """The value that is spelled so, and only so."""
    value, end = _unpack(data, 0)
    demand(end == len(data) and pack(value) == data, "bytes that are not in their one spelling")
    return value


def _unpack(data: bytes, at: int) -> tuple[Any, int]:
    demand(at < len(data), "bytes that end too early")
    head, at = data[at], at + 1
    if head < 0x80:
        return head, at
    if head in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[head], at
    if 0xCC <= head <= 0xCF:
        end = at + (1 << (head - 0xCC))
        return int.from_bytes(data[at:end], "big"), end
    if 0x90 <= head <= 0x9F or head in (0xDC, 0xDD):
        count, at = (head - 0x90, at) if head < 0xA0 else _size(data, at, 2 << (head - 0xDC))
        found = []
        for _ in range(count):
            item, at = _unpack(data, at)
            found.append(item)
        return found, at
    is_text = 0xA0 <= head <= 0xBF or 0xD9 <= head <= 0xDB
    demand(is_text or 0xC4 <= head <= 0xC6, f"byte {head:#x} where a value begins")
    if 0xA0 <= head <= 0xBF:
        count = head - 0xA0
    else:
        count, at = _size(data, at, 1 << (head - (0xD9 if is_text else 0xC4)))
    demand(at + count <= len(data), "bytes that end too early")
    piece = data[at : at + count]
    return piece.decode() if is_text else piece, at + count


def _size(data: bytes, at: int, width: int) -> tuple[int, int]:
    return int.from_bytes(data[at : at + width], "big"), at + width


def root_from_path(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.3.2."""
    demand(0 <= index < size, f"leaf {index} of a tree of {size}")
    value, position, last, steps = leaf, index, size - 1, list(path)
    while last > 0:
        if position % 2 or position < last:
            demand(bool(steps), "a path that is too short")
            sibling = steps.pop(0)
            value = sha256(b"\x01" + sibling + value) if position % 2 else sha256(b"\x01" + value + sibling)
        position, last = position // 2, last // 2
    demand(not steps, "a path that is too long")
    return value


def is_signed(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        VerifyKey(key).verify(message, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


# The chain


class Founding:
    """Step 2: who the validators are."""

    def __init__(self, data: bytes, chain: bytes) -> None:
        genesis, signatures = unpack(data)
        demand(tagged(b"p2pl/genesis/1", pack(genesis)) == chain, "the genesis is of another chain than CHAIN_ID")
        self.chain, cards = chain, genesis[4]
        demand(len(signatures) == len(cards) > 0, "the genesis lacks signatures")
        for card, signature in zip(cards, signatures, strict=True):
            demand(is_signed(card[3], chain, signature), f"member {card[1]!r} has not signed the genesis")
        self.names = {card[0]: card[1] for card in cards}
        seats = sorted([card[5], card[6], card[0]] for card in cards)
        self.validators = [seat[0] for seat in seats]
        self.hash = sha256(pack(seats))
        n = len(seats)
        self.quorum = (n + (n - 1) // 3 + 2) // 2

    def header(self, anchor: bytes) -> list[Any]:
        """Step 3: the first header of an anchor, final."""
        headers, certificate = unpack(anchor)
        hashes = [tagged(b"p2pl/block/1", pack(header)) for header in headers]
        for (before, header), parent in zip(pairwise(headers), hashes, strict=False):
            demand(header[4] == parent and header[3] == before[3] + 1, f"header {header[3]} does not follow")
        last = headers[-1]
        demand(all(header[1] == self.chain for header in headers), "a header is of another chain")
        demand(last[6] == self.hash, "a header names other validators than the genesis")
        kind, epoch, view, height, block, votes = certificate
        demand(
            (kind, epoch, height, block) == ("commit", last[2], last[3], hashes[-1]), "a certificate of another block"
        )
        demand(len(votes) == self.quorum, f"{len(votes)} votes, a quorum has {self.quorum}")
        seats = [seat for seat, _ in votes]
        demand(seats == sorted(set(seats)) and seats[-1] < len(self.validators), "votes of the wrong seats")
        for seat, signature in votes:
            author = self.validators[seat]
            content = epoch.to_bytes(8, "big") + pack([view, height, block, author])
            said = bytes([13]) + b"p2pl/commit/1" + self.chain + content
            demand(is_signed(author, said, signature), f"the vote of seat {seat} is not signed")
        return list(headers[0])

    def has(self, key: bytes, value: bytes | None, height: int, proof: bytes, anchor: bytes) -> None:
        """Step 4: the state at a checkpoint has this value at this key."""
        roots = dict(self.header(anchor)[14])
        demand(height in roots, f"the header carries no state root of height {height}")
        leaves, path = unpack(proof)
        hashed = tagged(b"p2pl/state-key/1", key)
        bucket = int.from_bytes(hashed[:3], "big") >> 6
        demand(len(path) == 42, "a state proof of another length")
        demand(all(left[0] < right[0] for left, right in pairwise(leaves)), "leaves of a state proof out of order")
        demand(all(len(part) == 32 for leaf in leaves for part in leaf), "a leaf of a state proof of another length")
        there = [int.from_bytes(leaf[0][:3], "big") >> 6 for leaf in leaves]
        demand(all(other == bucket for other in there), "a leaf of a state proof in the wrong bucket")
        record = b"".join(leaf[0] + leaf[1] for leaf in leaves)
        reached = sha256(b"\x00" + record) if record else sha256(b"")
        for level in range(6):
            place, siblings = bucket >> 3 * level & 7, path[7 * level : 7 * level + 7]
            reached = sha256(b"\x01" + b"".join([*siblings[:place], reached, *siblings[place:]]))
        demand(reached == roots[height], "a state proof leads to another root")
        found = dict(leaves).get(hashed)
        demand(found == (None if value is None else sha256(value)), "the state says something else")


# The export


def read_json(folder: Path, name: str) -> Any:
    data = (folder / name).read_bytes()
    document = json.loads(data)
    spelled = (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()
    demand(spelled == data, f"{name} is not spelled as it was written")
    return document


def check_files(folder: Path) -> int:
    """Step 1: nothing is missing, changed or added; how many files there are."""
    text = (folder / "SHA256SUMS").read_text()
    listed = {line[66:]: line[:64] for line in text.splitlines()}
    demand(text == "".join(f"{listed[name]}  {name}\n" for name in sorted(listed)), "SHA256SUMS is not in its spelling")
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"SHA256SUMS"}
    demand(present == set(listed), f"files that are missing or were added: {sorted(present ^ set(listed))}")
    for name, digest in listed.items():
        demand(sha256((folder / name).read_bytes()).hex() == digest, f"{name} was changed")
    return len(listed)


def restored(line: bytes, breaks: list[Any]) -> bytes:
    """The exact bytes of a record: the line breaks that NDJSON has no place for come back."""
    data, at = b"", 0
    for offset, inserted in breaks:
        piece = bytes.fromhex(inserted)
        demand(offset >= len(data) and set(piece) <= set(b"\r\n"), "line breaks out of order")
        step = offset - len(data)
        data, at = data + line[at : at + step] + piece, at + step
    return data + line[at:]


def check_batch(founding: Founding, pid: bytes, batch: Any, lines: Any) -> int:
    """Steps 4 and 5 for one batch; how many records it has here."""
    name, value = bytes.fromhex(batch["batch"]), bytes.fromhex(batch["value"])
    proof, anchor = bytes.fromhex(batch["state"]), bytes.fromhex(batch["anchor"])
    founding.has(b"\x20" + name, value, batch["height"], proof, anchor)
    terms = unpack(value)[0]
    demand((terms[0], terms[1], terms[2]) == (10, name, pid), f"batch {name.hex()} is not of this patient")
    count, root = terms[5], terms[6]
    indices = [record["index"] for record in batch["records"]]
    absent = [record["index"] for record in batch["absent"]]
    demand(sorted(indices + absent) == list(range(count)), f"batch {name.hex()} does not list its {count} records")
    for record in batch["records"]:
        where = f"record {name.hex()}/{record['index']}"
        line = lines.take(record["file"], record["line"], where)
        data = restored(line, record["breaks"])
        leaf = bytes.fromhex(record["leaf"])
        path = [bytes.fromhex(one) for one in record["path"]]
        parts = unpack(leaf)
        demand(parts[0] == record["index"], f"{where}: its leaf is of record {parts[0]}")
        reached = root_from_path(sha256(b"\x00" + leaf), parts[0], count, path)
        demand(reached == root, f"{where}: its leaf is not in the batch")
        salt = bytes.fromhex(record["salt"])
        found = sha256(b"p2pl/c1" + salt + record["media_type"].encode() + data)
        demand(len(salt) == 32 and found == parts[1], f"{where}: not the bytes that were committed to")
    return len(indices)


class Lines:
    """The lines of the record files, each to be used once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, list[bytes]] = {}
        self._used: set[tuple[str, int]] = set()

    def take(self, name: str, line: int, where: str) -> bytes:
        if name not in self._files:
            demand(name.startswith("records/") and ".." not in name, f"{where}: no file of records is called {name!r}")
            data = (self._folder / name).read_bytes()
            self._files[name] = data.splitlines() if name.endswith(".ndjson") else [data]
        demand(1 <= line <= len(self._files[name]), f"{where}: {name} has no line {line}")
        demand((name, line) not in self._used, f"{where}: line {line} of {name} is another record's, too")
        self._used.add((name, line))
        return self._files[name][line - 1]

    def check_all_used(self) -> None:
        """No line that nothing was proven about."""
        present = {path.relative_to(self._folder).as_posix() for path in (self._folder / "records").rglob("*.*")}
        demand(
            present == set(self._files), f"record files that nothing refers to: {sorted(present - set(self._files))}"
        )
        unproven = sum(map(len, self._files.values())) - len(self._used)
        demand(unproven == 0, f"{unproven} lines of records that nothing was proven about")


def check_log(founding: Founding, pid: bytes, log: Any) -> tuple[list[Any], list[Any]]:
    """Step 6: all lines up to the proven end, and all reports about released keys."""
    head = None if log["head"] is None else bytes.fromhex(log["head"])
    founding.has(b"\x50" + pid, head, log["height"], bytes.fromhex(log["state"]), bytes.fromhex(log["anchor"]))
    previous, found = bytes(32), []
    for number, text in enumerate(log["lines"], start=1):
        line = unpack(bytes.fromhex(text))
        demand(line[:3] == [pid, number, previous], f"line {number} of the access log does not follow")
        previous = tagged(b"p2pl/log-line/1", pack(line))
        found.append(line)
    end = [0, bytes(32), 0, bytes(32)] if head is None else unpack(head)
    demand(end[:2] == [len(found), previous], "the access log ends elsewhere than the chain says")
    previous, reports = bytes(32), []
    for number, text in enumerate(log["releases"], start=1):
        report = unpack(bytes.fromhex(text))
        demand(report[:3] == [pid, number, previous], f"report {number} about released keys does not follow")
        previous = tagged(b"p2pl/release-line/1", pack(report))
        reports.append(report)
    demand(end[2:] == [len(reports), previous], "the reports about released keys end elsewhere than the chain says")
    return found, reports


def print_log(founding: Founding, lines: list[Any], reports: list[Any]) -> None:
    validators: dict[bytes, set[bytes]] = {}
    for report in reports:
        validators.setdefault(report[5], set()).add(report[6])
    for line in lines:
        count = len(validators.get(line[6], ()))
        when = datetime.fromtimestamp(line[4] // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        who = founding.names.get(line[9], line[9].hex())
        answer = "ALLOWED" if line[11] == 0 else f"DENIED ({line[11]})"
        print(
            f"{line[1]:>5}  {when}  {who}  {line[10]}  {answer}  basis {line[12]}  {line[16]} records  "
            f"keys released by {count} of {len(founding.validators)} validators"
        )


def verify(folder: Path, chain: bytes, *, shows_log: bool) -> str:
    """What the export proves; raises Wrong."""
    files = check_files(folder)
    proofs, log = read_json(folder, "proofs.json"), read_json(folder, "access-log.json")
    demand(proofs["format"] == log["format"] == FORMAT, "another format than this script verifies")
    demand(proofs["chain"] == chain.hex(), "the export is of another chain than CHAIN_ID")
    founding = Founding(bytes.fromhex(proofs["genesis"]), chain)
    pid, lines = bytes.fromhex(proofs["pid"]), Lines(folder)
    demand(log["pid"] == proofs["pid"], "the access log is of another patient")
    records = sum(check_batch(founding, pid, batch, lines) for batch in proofs["batches"])
    lines.check_all_used()
    entries, reports = check_log(founding, pid, log)
    if shows_log:
        print_log(founding, entries, reports)
    absent = sum(len(batch["absent"]) for batch in proofs["batches"])
    return (
        f"verified: {records} records in {len(proofs['batches'])} batches of patient {proofs['pid']}, "
        f"{absent} that the custodian holds no more, {len(entries)} lines of the access log up to height "
        f"{log['height']}, {files} files"
    )


def main(arguments: list[str]) -> int:
    shows_log = "--log" in arguments
    given = [argument for argument in arguments if argument != "--log"]
    if not 1 <= len(given) <= 2 or len(given[0]) != 64:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(given[1]) if len(given) == 2 else Path(__file__).parent
    try:
        print(verify(folder, bytes.fromhex(given[0]), shows_log=shows_log))
    except Wrong as error:
        print(f"NOT VERIFIED: {error}", file=sys.stderr)
        return 1
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        print(f"NOT VERIFIED: the export cannot be read: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
