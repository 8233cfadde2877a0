"""Falsified exports, each of which must be refused: what a liar with the file, or with keys of his own, could try."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from p2pledger.chain.block import Header
from p2pledger.chain.genesis import Founding
from p2pledger.client.export import read_export
from p2pledger.consensus.anchor import Anchor
from p2pledger.consensus.messages import Certificate, Vote, ballot_statement
from p2pledger.primitives.codec import encode
from p2pledger.primitives.crypto import SigningKey


def forgeries(export: bytes, lookalike: Founding, consensus_keys: Sequence[SigningKey]) -> dict[str, bytes]:
    """What was falsified → the file. `lookalike` founds another chain, whose validators' keys the liar has."""
    document = json.loads(export)
    anchor = read_export(export).anchor
    votes = anchor.certificate.votes
    lines = document["lines"]
    middle = len(export) // 2
    return {
        "one byte changed": export[:middle] + bytes([export[middle] ^ 1]) + export[middle + 1 :],
        "a lookalike chain with other keys": _on_another_chain(document, anchor, lookalike, consensus_keys),
        "q − 1 signatures": _with_votes(document, anchor, votes[:-1]),
        "one signer twice": _with_votes(document, anchor, (*votes[:-1], votes[0])),
        "one line removed": _written(document, lines=lines[:1] + lines[2:]),
        "two lines in another order": _written(document, lines=[lines[1], lines[0], *lines[2:]]),
    }


def _written(document: dict[str, Any], **changed: Any) -> bytes:
    """The document with changes, written as an honest program writes it."""
    return json.dumps({**document, **changed}, indent=1, ensure_ascii=False).encode() + b"\n"


def _with_votes(document: dict[str, Any], anchor: Anchor, votes: tuple[Vote, ...]) -> bytes:
    certificate = msgspec.structs.replace(anchor.certificate, votes=votes)
    proof = {**document["proof"], "anchor": encode(Anchor(anchor.headers, certificate)).hex()}
    return _written(document, proof=proof)


def _on_another_chain(
    document: dict[str, Any], anchor: Anchor, founding: Founding, keys: Sequence[SigningKey]
) -> bytes:
    """The same lines under a genesis and a quorum that look right and have nothing to do with the consortium."""
    headers: list[Header] = []
    for header in anchor.headers:
        parent = headers[-1].hash if headers else header.parent
        changes = {"chain": founding.chain, "validators_hash": founding.validators.hash, "parent": parent}
        headers.append(msgspec.structs.replace(header, **changes))
    last, old = headers[-1], anchor.certificate
    bare = Certificate("commit", old.epoch, old.view, last.height, last.hash, ())
    signers = {key.public: key for key in keys}
    members = founding.validators.members[: founding.validators.q]
    votes = tuple(
        Vote(seat, signers[member.id].sign(ballot_statement(founding.chain, bare, member.id)))
        for seat, member in enumerate(members)
    )
    forged = Anchor(tuple(headers), msgspec.structs.replace(bare, votes=votes))
    proof = {**document["proof"], "anchor": encode(forged).hex(), "genesis": encode(founding.signed).hex()}
    return _written(document, chain=founding.chain.hex(), proof=proof)
