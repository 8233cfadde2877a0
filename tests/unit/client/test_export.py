"""F-08, F-40: the exported access log verifies with nothing but the chain id, and no forgery does.

Each forgery is shown to pass the steps that do not look at it before the whole verification refuses it.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from p2pledger.chain.block import Header
from p2pledger.chain.genesis import Founding, assemble, combine, sign_card, sign_genesis
from p2pledger.chain.validators import Validator, ValidatorSet
from p2pledger.client.export import Export, of_reply, read_export, verify_export, write_export
from p2pledger.client.verify import (
    check_final,
    check_log_lines,
    check_log_reply,
    check_state_reply,
    check_value,
    state_root_at,
)
from p2pledger.consensus.anchor import Anchor
from p2pledger.consensus.certificates import build_certificate
from p2pledger.consensus.messages import Certificate, Vote, ballot_statement
from p2pledger.health import keys
from p2pledger.health.log import LogHead, decode_line, line_hash
from p2pledger.primitives.codec import encode
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, ProofError
from p2pledger.primitives.ids import Epoch, View
from p2pledger.state import tree
from tests.unit.client.chain import Chain
from tests.unit.execution.ledger import hash32, id16, key
from tests.unit.health.world import PATIENT, PID


@pytest.fixture(scope="module")
def chain() -> Chain:
    """A chain on which a physician asked three times: allowed, denied for the purpose, allowed."""
    chain = Chain()
    assert chain.grant() == Code.OK
    assert chain.ask("first") == Code.OK
    assert chain.ask("second", purpose="HRESCH") == Code.E_PURPOSE
    assert chain.ask("third") == Code.OK
    chain.tick()
    return chain


@pytest.fixture(scope="module")
def export(chain: Chain) -> Export:
    return of_reply(chain.log_reply(PID), chain.founding)


@pytest.fixture(scope="module")
def file(chain: Chain, export: Export) -> bytes:
    return write_export(export, chain.chain)


def forged(genuine: bytes, export: Export) -> bytes:
    """The file that a forger writes around other parts; what people read is left as it was."""
    document = json.loads(genuine)
    readable = [line["reads"] for line in document["lines"]]
    document["pid"], document["height"] = export.pid.hex(), export.height
    document["lines"] = [
        {"reads": readable[min(i, len(readable) - 1)], "bytes": line.hex()} for i, line in enumerate(export.lines)
    ]
    document["proof"] = {
        "head": None if export.head is None else export.head.hex(),
        "state": encode(export.proof).hex(),
        "anchor": encode(export.anchor).hex(),
        "genesis": export.genesis.hex(),
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def test_an_export_verifies_and_says_who_why_when(chain: Chain, file: bytes) -> None:
    log = verify_export(file, chain.chain)
    assert [line.decision for line in log.lines] == [Code.OK, Code.E_PURPOSE, Code.OK]
    assert (log.pid, log.height) == (PID, chain.height - 1)
    assert log.proven_ms == chain.headers[-1].time_ms
    lines = [line["reads"] for line in json.loads(file)["lines"]]
    assert [(line["who"], line["purpose"], line["answer"]) for line in lines] == [
        ("Tal", "TREAT", "ALLOWED"),
        ("Tal", "HRESCH", "DENIED (E_PURPOSE)"),
        ("Tal", "TREAT", "ALLOWED"),
    ]


def test_an_empty_log_is_proven_to_be_empty(chain: Chain) -> None:
    """A patient whom nobody asked about gets a proof that there is no line."""
    file = write_export(of_reply(chain.log_reply(id16("somebody else")), chain.founding), chain.chain)
    assert verify_export(file, chain.chain).lines == ()


def test_a_changed_byte_anywhere_does_not_verify(chain: Chain, file: bytes) -> None:
    """A hundred places over the whole file, in the readable part and the proofs alike."""
    for place in range(0, len(file), max(1, len(file) // 100)):
        changed = bytearray(file)
        changed[place] ^= 0x01
        with pytest.raises(ProofError):
            verify_export(bytes(changed), chain.chain)
    with pytest.raises(ProofError, match="text"):
        verify_export(file + b"\n", chain.chain)
    with pytest.raises(ProofError, match="text"):
        verify_export(file[:-1], chain.chain)


def test_what_people_read_is_what_the_bytes_say(chain: Chain, file: bytes) -> None:
    """A denial that reads as an allowance: the parts verify, the text does not."""
    lying = file.replace(b"DENIED (E_PURPOSE)", b"ALLOWED")
    assert read_export(lying) == read_export(file)
    with pytest.raises(ProofError, match=r"^text: what the file says for people"):
        verify_export(lying, chain.chain)


def lookalike(real: Founding) -> tuple[Founding, dict[bytes, SigningKey]]:
    """The same organisations and names, founded by whoever made these other keys."""
    keys_of = {
        card.name: [key(f"{what} of false {card.name}") for what in ("account", "vote", "node")]
        for card in real.genesis.cards
    }
    cards = []
    for card in real.genesis.cards:
        account, vote, node = keys_of[card.name]
        false = replace(card, account=account.public, validator=vote.public, node=node.public)
        cards.append(sign_card(false, account))
    genesis = assemble(real.genesis.name, real.genesis.created_ms, real.parameters, cards)
    signatures = {keys[0].public: sign_genesis(genesis, keys[0]) for keys in keys_of.values()}
    votes = {keys[1].public: keys[1] for keys in keys_of.values()}
    return Founding(combine(genesis, signatures)), votes


def without_accesses(founding: Founding, header: Header, votes: dict[bytes, SigningKey]) -> Export:
    """A log that says nobody ever looked, certified by these keys for a header like the real one."""
    root, records = tree.update({}.get, {b"any other key": b"value"})
    false = replace(header, state_roots=(replace(header.state_roots[0], root=root),))
    place = (Epoch(0), View(0), false.height)
    empty = Certificate("commit", *place, false.hash, ())
    signatures = {k: vote.sign(ballot_statement(false.chain, empty, k)) for k, vote in votes.items()}
    seats = ValidatorSet(tuple(Validator(k, k, k[:16]) for k in sorted(votes)))
    anchor = Anchor((false,), build_certificate("commit", place, false.hash, signatures, seats))
    proof = tree.prove(records.get, keys.log_head(PID))
    return Export(encode(founding.signed), PID, false.state_roots[0].height, (), None, proof, anchor)


def test_a_lookalike_chain_with_other_keys_is_another_chain(chain: Chain) -> None:
    """Same organisations, same names, other keys: flawless as its own chain, and never the one that was meant."""
    false, votes = lookalike(chain.founding)
    header = replace(chain.headers[-1], chain=false.chain, validators_hash=false.validators.hash)
    export = without_accesses(false, header, votes)
    file = write_export(export, false.chain)
    assert verify_export(file, false.chain).lines == ()  # who takes the chain id from the file is deceived
    with pytest.raises(ProofError, match=r"^genesis: it founds chain"):
        verify_export(file, chain.chain)


def test_other_keys_cannot_certify_for_the_real_chain(chain: Chain, file: bytes) -> None:
    """The real genesis, and a header of the real chain that only the lookalike's keys signed."""
    _, votes = lookalike(chain.founding)
    forgery = without_accesses(chain.founding, chain.headers[-1], votes)
    root = state_root_at(forgery.anchor.headers[0], forgery.height)
    check_value(forgery.proof, keys.log_head(PID), None, root)
    with pytest.raises(ProofError, match=r"^anchor: .*signature of seat \d is wrong"):
        verify_export(forged(file, forgery), chain.chain)


def test_a_genesis_without_a_founder_s_signature_is_none(chain: Chain, file: bytes, export: Export) -> None:
    signed = chain.founding.signed
    unsigned = replace(signed, signatures=(signed.signatures[1], *signed.signatures[1:]))
    forgery = replace(export, genesis=encode(unsigned))
    assert unsigned.genesis.chain == chain.chain  # the hash alone would be right
    with pytest.raises(ProofError, match=r"^genesis: genesis is not signed by"):
        verify_export(forged(file, forgery), chain.chain)


def _votes(export: Export, change: Callable[[tuple[Vote, ...]], tuple[Vote, ...]]) -> Export:
    certificate = export.anchor.certificate
    changed = replace(certificate, votes=change(certificate.votes))
    return replace(export, anchor=replace(export.anchor, certificate=changed))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda votes: votes[:-1], "certificate with 2 votes, the quorum is 3"),
        (lambda votes: (votes[0], votes[1], votes[1]), "counts seat 1 twice"),
        (lambda votes: (*votes[:2], replace(votes[1], seat=2)), "signature of seat 2 is wrong"),
        (lambda votes: (*votes[:2], replace(votes[2], seat=7)), "names seat 7 of 4"),
        (lambda votes: (*votes, replace(votes[2], seat=3)), "certificate with 4 votes"),
    ],
)
def test_only_a_quorum_of_distinct_signers_makes_a_proof(
    chain: Chain, file: bytes, export: Export, change: Any, words: str
) -> None:
    """q - 1 signatures, one signer twice, a borrowed signature: all else in the file still leads to its root."""
    forgery = _votes(export, change)
    root = state_root_at(forgery.anchor.headers[0], forgery.height)
    check_value(forgery.proof, keys.log_head(PID), forgery.head, root)
    check_log_lines(PID, forgery.lines, forgery.head)
    with pytest.raises(ProofError, match=r"^anchor: .*" + words):
        verify_export(forged(file, forgery), chain.chain)


def test_a_removed_line_is_missed(chain: Chain, file: bytes, export: Export) -> None:
    """The quorum's signatures hold; but the lines do not lead to the proven head."""
    for lines in (export.lines[:-1], export.lines[1:], export.lines[:1] + export.lines[2:], ()):
        forgery = replace(export, lines=lines)
        check_final(forgery.anchor, chain.founding)
        with pytest.raises(ProofError, match=r"^lines: "):
            verify_export(forged(file, forgery), chain.chain)


def test_reordered_and_added_lines_are_refused(chain: Chain, file: bytes, export: Export) -> None:
    first, second, third = export.lines
    for lines in ((second, first, third), (first, second, third, third), (first, third, second)):
        with pytest.raises(ProofError, match=r"^lines: "):
            verify_export(forged(file, replace(export, lines=lines)), chain.chain)


def test_a_forged_head_that_fits_forged_lines_is_not_in_the_state(chain: Chain, file: bytes, export: Export) -> None:
    """Hide the last access and make a head for what is left: the lines verify, the state proof does not."""
    left = export.lines[:-1]
    last = decode_line(left[-1])
    head = encode(LogHead(last.sequence, line_hash(last)))
    assert len(check_log_lines(PID, left, head)) == 2
    with pytest.raises(ProofError, match=r"^state proof: "):
        verify_export(forged(file, replace(export, lines=left, head=head)), chain.chain)


def test_an_absence_cannot_be_claimed_of_a_log_that_is_there(chain: Chain, file: bytes, export: Export) -> None:
    forgery = replace(export, lines=(), head=None)
    assert check_log_lines(PID, (), None) == []
    with pytest.raises(ProofError, match=r"^state proof: .*not absence"):
        verify_export(forged(file, forgery), chain.chain)


def test_the_log_of_another_pid_proves_nothing_about_this_one(chain: Chain, file: bytes, export: Export) -> None:
    forgery = replace(export, pid=id16("somebody else"))
    check_value(export.proof, keys.log_head(PID), export.head, state_root_at(export.anchor.headers[0], export.height))
    with pytest.raises(ProofError, match=r"^state proof: "):
        verify_export(forged(file, forgery), chain.chain)


def test_a_root_is_good_for_its_own_checkpoint_only(chain: Chain, file: bytes, export: Export) -> None:
    with pytest.raises(ProofError, match=r"^state root: header .* carries no root of checkpoint"):
        verify_export(forged(file, replace(export, height=export.height - 1)), chain.chain)


def test_headers_must_be_linked(chain: Chain, file: bytes, export: Export) -> None:
    """A forged first header before a genuine, certified one."""
    genuine = export.anchor
    root = replace(genuine.headers[0].state_roots[0], root=hash32("wished for"))
    lying = replace(genuine.headers[0], state_roots=(root,))
    chain.tick()
    certified = chain.anchor(chain.height)
    anchor = replace(certified, headers=(lying, *certified.headers))
    assert check_final(certified, chain.founding).height == lying.height + 1
    with pytest.raises(ProofError, match=r"^anchor: header .* does not follow"):
        verify_export(forged(file, replace(export, anchor=anchor)), chain.chain)


def test_newer_lines_are_linked_to_the_proven_ones() -> None:
    """Lines after the checkpoint are shown if they follow, and said to be unproven."""
    chain = Chain()
    chain.grant()
    chain.ask("first")
    chain.tick()
    proven = chain.log_reply(PID)
    chain.ask("second")
    newer = chain.log_reply(PID).lines[1:]
    log = check_log_reply(replace(proven, newer=newer), chain.founding, PID)
    assert (len(log.lines), len(log.newer)) == (1, 1)
    with pytest.raises(ProofError, match=r"^newer lines: "):
        check_log_reply(replace(proven, newer=proven.lines), chain.founding, PID)
    with pytest.raises(ProofError, match="asked was"):
        check_log_reply(proven, chain.founding, id16("somebody else"))


def test_any_state_value_is_proven_present_or_absent(chain: Chain) -> None:
    """F-40, for an identity that exists and one that does not; a changed value is refused."""
    chain.tick()
    reply = chain.state_reply(keys.identity(PID))
    value = check_state_reply(reply, chain.founding, keys.identity(PID))
    assert value is not None and PATIENT.public in value
    absent = keys.identity(id16("nobody"))
    assert check_state_reply(chain.state_reply(absent), chain.founding, absent) is None
    with pytest.raises(ProofError, match=r"^state proof: "):
        check_state_reply(replace(reply, value=value + b"\0"), chain.founding, keys.identity(PID))
    with pytest.raises(ProofError, match=r"^state proof: "):
        check_state_reply(replace(reply, value=None), chain.founding, keys.identity(PID))
