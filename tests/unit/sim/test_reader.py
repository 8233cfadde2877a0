"""The observer's own reader against the golden vectors, and its arithmetic against the node's."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pledger.chain import validators
from p2pledger.primitives import merkle
from p2pledger.sim.observer import encoding
from p2pledger.sim.observer.blocks import read_batch, read_founding, read_header, read_receipt, read_transaction
from p2pledger.sim.observer.encoding import Unreadable, pack, unframed, unpack
from p2pledger.sim.observer.reader import COMMIT, PREPARE, Reader, Statement
from p2pledger.state import tree

VECTORS = Path(__file__).parents[2] / "vectors"
AGREEMENT: dict[str, Any] = json.loads((VECTORS / "agreement.json").read_text())
NETWORK: dict[str, Any] = json.loads((VECTORS / "network.json").read_text())
FOUNDING = read_founding(bytes.fromhex(AGREEMENT["genesis"]["bytes"]))


def _said(name: str, signature: str | None = None) -> Statement:
    vector = AGREEMENT["statements"][name]
    signed = (unpack(bytes.fromhex(vector["message"])), bytes.fromhex(signature or vector["signature"]))
    own = Reader(FOUNDING).read_message(pack((1, signed))).own
    assert own is not None
    return own


def test_the_genesis() -> None:
    """Chain id, seats by key, and block 0."""
    assert FOUNDING.chain.hex() == AGREEMENT["genesis"]["chain"]
    assert {seat.key.hex() for seat in FOUNDING.seats} == {seat["public"] for seat in AGREEMENT["seats"].values()}
    block = read_header(bytes.fromhex(AGREEMENT["block"]["bytes"]))
    assert block.hash.hex() == AGREEMENT["block"]["hash"]
    assert block.parent == FOUNDING.block
    assert (block.validators_hash, block.parameters_hash) == (FOUNDING.validators_hash, FOUNDING.parameters_hash)


@pytest.mark.parametrize("name", list(AGREEMENT["statements"]))
def test_what_a_validator_signs(name: str) -> None:
    """Each kind of statement: the bytes under the signature, and that the signature holds."""
    said = _said(name)
    assert said.signed.hex() == AGREEMENT["statements"][name]["signed_bytes"]
    assert encoding.holds(said.author, said.signed, said.signature)
    assert not encoding.holds(said.author, said.signed, bytes(64))


def test_certificates() -> None:
    """Every vote is a statement of its seat."""
    for name, kind in (("prepare", PREPARE), ("commit", COMMIT)):
        certificate = Reader(FOUNDING).read_certificate(bytes.fromhex(AGREEMENT["certificates"][name]))
        assert certificate.kind == kind and certificate.block.hex() == AGREEMENT["block"]["hash"]
        assert len(certificate.votes) == FOUNDING.q
        assert all(encoding.holds(vote.author, vote.signed, vote.signature) for vote in certificate.votes)


def test_what_travels_beside_a_statement_is_heard_too() -> None:
    """The votes of a VIEW-CHANGE's lock, the quoted claims of a NEW-VIEW."""
    vector = AGREEMENT["statements"]["new_view"]
    body = pack((1, (unpack(bytes.fromhex(vector["message"])), bytes.fromhex(vector["signature"]))))
    heard = Reader(FOUNDING).read_message(body)
    kinds = [said.kind for said in heard.statements]
    assert kinds.count(4) == kinds.count(2) == FOUNDING.q and kinds.count(5) == 1
    assert all(encoding.holds(said.author, said.signed, said.signature) for said in heard.statements)
    assert [header.hash.hex() for header in heard.headers] == [AGREEMENT["block"]["hash"]]


def test_transactions_batches_and_receipts() -> None:
    """Ids, signatures of sender and cosigner, and the leaf of a receipt."""
    transaction = read_transaction(bytes.fromhex(AGREEMENT["transaction"]["bytes"]))
    assert transaction.id.hex() == AGREEMENT["transaction"]["id"] and transaction.is_signed()
    batch = bytes.fromhex(AGREEMENT["batch"]["bytes"])
    assert merkle.sha256(batch).hexdigest() == AGREEMENT["batch"]["id"]
    assert [each.id for each in read_batch(batch)] == [transaction.id]
    receipt = read_receipt(bytes.fromhex(AGREEMENT["receipt"]["bytes"]))
    writes = encoding.leaf(b"w" + pack(((b"gone", None), (b"k", b"v"))))
    assert encoding.merkle_root([receipt.leaf, writes]).hex() == AGREEMENT["receipt"]["effects_root"]


def test_frames() -> None:
    """The framing of docs/wire.md, and what stands in the frames."""
    assert unframed(bytes.fromhex(NETWORK["frame"] + NETWORK["ping"])) == [(1, b"body"), (2, b"")]
    with pytest.raises(Unreadable, match="frame of length 5"):
        unframed(bytes.fromhex(NETWORK["frame"])[:-1])
    [(tag, body)] = unframed(bytes.fromhex(NETWORK["peer_messages"]["status"]))
    heard = Reader(FOUNDING).read_message(body)
    assert (tag, heard.kind, heard.standing) == (1, 3, (0, 3, 1000))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x92\x03",
        b"\x92\x04\xcd\x00\x05",  # 5 in three bytes
        b"\x92\x04\x05\x00",
        b"\x81\x01\x02",
        b"\x92\x04\x80",
        b"\x92\x04\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00",
        b"\x92\xc3\x92\x01\x02",  # true is no 1
        b"\x92\x0f\x05",
        b"\x92\x04\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x91" * 600,
    ],
)
def test_what_is_not_canonical_is_not_read(body: bytes) -> None:
    """One spelling for each value."""
    assert not Reader(FOUNDING).read_message(body).is_readable


@pytest.mark.parametrize("n", range(1, 51))
def test_quorums(n: int) -> None:
    """Two quorums share more than f; worked out in another way than by the node."""
    assert (encoding.faults(n), encoding.quorum(n)) == (validators.faults(n), validators.quorum(n))


@given(st.lists(st.binary(max_size=40), max_size=40))
def test_merkle_roots(entries: list[bytes]) -> None:
    """By halves from the top; the node works level by level."""
    assert encoding.merkle_root([encoding.leaf(entry) for entry in entries]) == merkle.root(entries)


@given(st.dictionaries(st.binary(min_size=1, max_size=20), st.binary(max_size=20), max_size=60))
def test_state_roots(state: dict[bytes, bytes]) -> None:
    """From nothing, over the whole state; the node changes what has changed."""
    root, _ = tree.update(lambda key: None, dict(state))
    assert encoding.state_root(state) == root
