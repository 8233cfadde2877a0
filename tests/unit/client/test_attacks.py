"""What a lying node tells its client: each lie is believed without the one step of the proof that it fails (T38)."""

import json
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from p2pledger.chain.receipt import Executed
from p2pledger.chain.transaction import parse
from p2pledger.client import custody, export
from p2pledger.client.export import Export, of_reply, verify_export, write_export
from p2pledger.client.ledger import LedgerClient
from p2pledger.client.verify import check_founding, check_log_reply, check_state_reply
from p2pledger.consensus import anchor as anchors
from p2pledger.consensus.anchor import Anchor, ReceiptEvidence, check_anchor, check_receipt
from p2pledger.consensus.certificates import build_certificate
from p2pledger.consensus.messages import Certificate, ballot_statement
from p2pledger.health import commitments, keys, log
from p2pledger.health.commitments import FHIR_JSON, RecordRef, check_commitment, check_record, commit
from p2pledger.health.log import LogHead, decode_line, line_hash
from p2pledger.network.api import AwaitReceipt, ReceiptReply, Reply, Request
from p2pledger.primitives import merkle
from p2pledger.primitives.codec import encode
from p2pledger.primitives.errors import Code, InvalidInput, ProofError, Refused, Rejected
from p2pledger.primitives.ids import Epoch, View
from p2pledger.state import tree as state_tree
from p2pledger.state.tree import StateProof, check_state_proof, proof_root
from tests.attack import Check, Without
from tests.unit.client.chain import SEATS, Chain
from tests.unit.client.nodes import HonestNode, MisbehavingNode, client_of
from tests.unit.client.test_export import forged, lookalike, without_accesses
from tests.unit.client.test_ledger import recorded
from tests.unit.execution.ledger import hash32, key
from tests.unit.health.test_commitments import leaves
from tests.unit.health.world import BERG, PATIENT, PID
from tests.unit.state.test_tree import FULL, NEIGHBOURS, Tree


@pytest.fixture(scope="module")
def chain() -> Chain:
    """Three accesses, and one transaction of the patient that the chain refused."""
    chain = Chain()
    assert chain.grant() == Code.OK
    for name in ("first", "second", "third"):
        chain.ask(name)
    assert chain.grant() == Code.E_DUP
    chain.tick()
    return chain


def is_refused(act: Callable[[], object]) -> bool:
    try:
        act()
    except (ProofError, InvalidInput):
        return True
    return False


# Headers and certificates


def signed_by_others(chain: Chain) -> Anchor:
    """The same header, certified by keys that the node made itself."""
    genuine = chain.anchor(chain.height)
    _, votes = lookalike(chain.founding)
    return without_accesses(chain.founding, genuine.headers[-1], votes).anchor


def with_one_signer_three_times(chain: Chain) -> Anchor:
    genuine = chain.anchor(chain.height)
    certificate = genuine.certificate
    return replace(genuine, certificate=replace(certificate, votes=certificate.votes[:1] * 3))


def with_a_forged_ancestor(chain: Chain) -> Anchor:
    genuine = chain.anchor(chain.height)
    parent = chain.headers[-2]
    lying = replace(parent, state_roots=(replace(parent.state_roots[0], root=hash32("wished for")),))
    return replace(genuine, headers=(lying, *genuine.headers))


def certified_for_another_header(chain: Chain) -> Anchor:
    genuine = chain.anchor(chain.height)
    lying = replace(genuine.headers[-1], state_roots=())
    return replace(genuine, headers=(lying,))


def certified_by_prepares(chain: Chain) -> Anchor:
    """What a quorum has prepared may never be committed."""
    header = chain.headers[-1]
    place = (Epoch(0), View(0), header.height)
    empty = Certificate("prepare", *place, header.hash, ())
    signers = [key(f"validator of {name}") for name in SEATS]
    signatures = {k.public: k.sign(ballot_statement(chain.chain, empty, k.public)) for k in signers}
    made = build_certificate("prepare", place, header.hash, signatures, chain.founding.validators)
    return Anchor((header,), made)


@pytest.mark.attack("T38")
@pytest.mark.parametrize(
    ("check", "lie"),
    [
        (Check(anchors.check_anchor, "check_certificate("), signed_by_others),
        (Check(anchors.check_anchor, "check_certificate("), with_one_signer_three_times),
        (Check(anchors.check_anchor, "if child.parent != parent.hash or"), with_a_forged_ancestor),
        (Check(anchors.check_anchor, "if (certificate.height, certificate.block_hash"), certified_for_another_header),
        (Check(anchors.check_anchor, "if certificate.kind != 'commit'"), certified_by_prepares),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_header_is_final_by_a_quorum_of_the_founders_keys(
    chain: Chain, without: Without, check: Check, lie: Callable[[Chain], Anchor]
) -> None:
    anchor = lie(chain)
    with without(*check):
        assert check_anchor(anchor, chain.chain, chain.founding.validators) == anchor.headers[0]
    assert is_refused(lambda: check_anchor(anchor, chain.chain, chain.founding.validators))


@pytest.mark.attack("T38")
def test_a_lookalike_of_the_chain_is_another_chain(chain: Chain, without: Without) -> None:
    """Same organisations and names, flawless, founded by the liar alone; who takes the id from the file is deceived."""
    false, votes = lookalike(chain.founding)
    header = replace(chain.headers[-1], chain=false.chain, validators_hash=false.validators.hash)
    file = write_export(without_accesses(false, header, votes), false.chain)
    with without(check_founding, "if founding.chain != chain"):
        assert verify_export(file, chain.chain).lines == ()
    assert is_refused(lambda: verify_export(file, chain.chain))


# Receipts


def refused_receipt(chain: Chain) -> Executed:
    return chain.receipts[PATIENT.public, chain.nonces[PATIENT.public]]


def that_reads_as_a_success(chain: Chain) -> ReceiptEvidence:
    executed = refused_receipt(chain)
    assert executed.receipt.code == Code.E_DUP
    lying = replace(executed, receipt=replace(executed.receipt, code=int(Code.OK)))
    return replace(chain.evidence(executed), executed=lying)


def with_events_of_its_own(chain: Chain) -> ReceiptEvidence:
    """The receipt is genuine; what it is said to have reported is not."""
    executed = refused_receipt(chain)
    return replace(chain.evidence(executed), executed=replace(executed, events=(b"allowed",)))


@pytest.mark.attack("T38")
@pytest.mark.parametrize(
    ("check", "lie"),
    [
        (Check(anchors.check_receipt, "if effects_root_of("), that_reads_as_a_success),
        (Check(anchors.check_receipt, "if not executed.is_whole"), with_events_of_its_own),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_receipt_stands_in_the_effects_tree_of_its_height(
    chain: Chain, without: Without, check: Check, lie: Callable[[Chain], ReceiptEvidence]
) -> None:
    evidence = lie(chain)
    with without(*check):
        assert check_receipt(evidence, chain.chain, chain.founding.validators) == evidence.executed
    assert is_refused(lambda: check_receipt(evidence, chain.chain, chain.founding.validators))


@pytest.mark.attack("T38")
async def test_a_client_believes_receipts_of_its_own_transaction(chain: Chain, without: Without) -> None:
    """A node loses the transaction, and answers with what genuinely went well for somebody else."""
    other = next(each for each in chain.receipts.values() if each.receipt.code == Code.OK)
    reply = ReceiptReply(1, other, chain.evidence(other))
    async with client_of(chain, [HonestNode(chain)], BERG) as client:
        mine = parse(await client.sign(recorded()))
        with without(LedgerClient._believed, "if executed.receipt.transaction != transaction.id"):
            assert client._believed(reply, mine).executed == other
        with pytest.raises(ProofError, match="was used by transaction"):
            client._believed(reply, mine)


@pytest.mark.attack("T38")
async def test_a_forged_receipt_is_not_believed(chain: Chain, without: Without) -> None:
    """To the end, over a connection: a refusal that reads as a success, until an honest node is asked."""

    async def lie(node: HonestNode, request: Request) -> Reply | None:
        if not isinstance(request, AwaitReceipt):
            return None
        executed = chain.receipts[request.account, request.nonce]
        lying = replace(executed, receipt=replace(executed.receipt, code=int(Code.OK)))
        return ReceiptReply(request.id, lying, replace(chain.evidence(executed), executed=lying))

    again = chain.consent()
    async with client_of(chain, [MisbehavingNode(chain, lie)], PATIENT) as client:
        with without(anchors.check_receipt, "if effects_root_of("):
            assert (await client.submit(again)).code == Code.OK
    async with client_of(chain, [MisbehavingNode(chain, lie), *(HonestNode(chain) for _ in range(2))], PATIENT) as wary:
        with pytest.raises(Refused) as refused:
            await wary.submit(again)
    assert refused.value.code is Code.E_DUP


# State


@pytest.mark.attack("T38")
def test_a_value_is_the_one_under_the_root(chain: Chain, without: Without) -> None:
    """A suspended doctor shown as active, a consent shown as absent."""
    reply = chain.state_reply(keys.identity(PID))
    for lie in (reply.value and reply.value + b"\0", None):
        false = replace(reply, value=lie)
        with without(check_state_proof, "if found != wanted"):
            assert check_state_reply(false, chain.founding, keys.identity(PID)) == lie
        assert is_refused(lambda false=false: check_state_reply(false, chain.founding, keys.identity(PID)))


def of_another_state(proof: StateProof) -> StateProof:
    hidden = tuple(leaf for leaf in proof.leaves if leaf[0] != state_tree.key_hash(NEIGHBOURS[0]))
    return StateProof(hidden, proof.path)


@pytest.mark.attack("T38")
def test_an_absence_is_shown_by_the_whole_bucket(without: Without) -> None:
    """Leave out the one leaf that matters."""
    tree = Tree(FULL)
    hidden = of_another_state(tree.prove(NEIGHBOURS[0]))
    with without(check_state_proof, "if proof_root(proof, index) != root"):
        check_state_proof(hidden, NEIGHBOURS[0], None, tree.root)
    assert is_refused(lambda: check_state_proof(hidden, NEIGHBOURS[0], None, tree.root))


@pytest.mark.attack("T38")
def test_a_key_stands_in_its_bucket_once(without: Without) -> None:
    """With a key twice, both values could be shown under one root."""
    proof = Tree(FULL).prove(NEIGHBOURS[0])
    index = state_tree.bucket_of(state_tree.key_hash(NEIGHBOURS[0]))
    first = proof.leaves[0]
    name = next(name for name in NEIGHBOURS if state_tree.key_hash(name) == first[0])
    twice = StateProof((first, (first[0], state_tree.value_hash(b"second")), *proof.leaves[1:]), proof.path)
    root = proof_root(twice, index)
    with without(check_state_proof, "if any((left[0] >= right[0]"):
        check_state_proof(twice, name, b"second", root)
    assert is_refused(lambda: check_state_proof(twice, name, b"second", root))


@pytest.mark.attack("T38")
def test_a_path_leads_from_a_bucket_to_the_root(without: Without) -> None:
    """Stopped early, an inner node passes for a root."""
    proof = Tree(FULL).prove(b"other")
    index = state_tree.bucket_of(state_tree.key_hash(b"other"))
    short = StateProof(proof.leaves, proof.path[:35])
    root = proof_root(short, index)
    with without(check_state_proof, "if len(proof.path) != SIBLINGS"):
        check_state_proof(short, b"other", b"1", root)
    assert is_refused(lambda: check_state_proof(short, b"other", b"1", root))


@pytest.mark.attack("T38")
def test_a_leaf_belongs_into_its_bucket(without: Without) -> None:
    """A root over buckets that hold others' keys would say two things about one of them."""
    elsewhere = Tree(FULL).prove(NEIGHBOURS[0])
    index = state_tree.bucket_of(state_tree.key_hash(b"other"))
    root = proof_root(elsewhere, index)
    with without(check_state_proof, "bucket_of(leaf[0]) != index"):
        check_state_proof(elsewhere, b"other", None, root)
    assert is_refused(lambda: check_state_proof(elsewhere, b"other", None, root))


@pytest.mark.attack("T38")
def test_an_inclusion_path_begins_inside_its_tree(without: Without) -> None:
    """At an index beyond the last leaf no sibling is asked for: the leaf would be the root."""
    leaf = hash32("forged leaf")
    with without(merkle.root_from_path, "if not 0 <= index < size"):
        assert merkle.root_from_path(leaf, 4, 4, ()) == leaf
    assert is_refused(lambda: merkle.root_from_path(leaf, 4, 4, ()))


@pytest.mark.attack("T38")
def test_an_inclusion_path_is_used_up(without: Without) -> None:
    """One proof, one spelling."""
    path = [hash32(str(number)) for number in range(3)]
    with without(merkle.root_from_path, "if next(steps, None) is not None"):
        merkle.root_from_path(hash32("leaf"), 0, 4, path)
    assert is_refused(lambda: merkle.root_from_path(hash32("leaf"), 0, 4, path))


# Logs


@pytest.mark.attack("T38")
def test_a_hidden_access_is_missed(chain: Chain, without: Without) -> None:
    """The last line left out, with a head that fits what is left: the state does not have that head."""
    genuine = chain.log_reply(PID)
    left = genuine.lines[:-1]
    last = decode_line(left[-1])
    hidden = replace(genuine, lines=left, head=encode(LogHead(last.sequence, line_hash(last))))
    with without(check_state_proof, "if found != wanted"):
        assert len(check_log_reply(hidden, chain.founding, PID).lines) == 2
    assert is_refused(lambda: check_log_reply(hidden, chain.founding, PID))


@pytest.mark.attack("T38")
def test_newer_lines_follow_the_proven_ones(chain: Chain, without: Without) -> None:
    """Unproven they are, but nobody inserts an old access as a new one."""
    reply = chain.log_reply(PID)
    false = replace(reply, newer=reply.lines[:1])
    with (
        without(log.check_lines, "if (line.sequence, line.previous) !="),
        without(log.check_lines, "if (count, previous) !="),
    ):
        assert len(check_log_reply(false, chain.founding, PID).newer) == 1
    assert is_refused(lambda: check_log_reply(false, chain.founding, PID))
    short = replace(reply, lines=reply.lines[:-1])
    assert is_refused(lambda: check_log_reply(short, chain.founding, PID))


@pytest.mark.attack("T38")
def test_what_people_read_is_what_the_bytes_say(chain: Chain, without: Without) -> None:
    """F-08: the parts verify, the text beside them lies."""
    made: Export = of_reply(chain.log_reply(PID), chain.founding)
    file = write_export(made, chain.chain)
    document = json.loads(file)
    document["lines"][0]["reads"]["who"] = "Somebody else"
    lying = json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
    with without(export.verify_export, "if _dump(export, founding, log) != data"):
        assert len(verify_export(lying, chain.chain).lines) == 3
    assert is_refused(lambda: verify_export(lying, chain.chain))
    assert forged(file, made) == file


# Records


REF = RecordRef(b"b" * 16, 3)
SALT = bytes(range(32))


@pytest.mark.attack("T38")
def test_a_record_is_the_bytes_that_were_committed_to(without: Without) -> None:
    """F-36: 1.50 is not 1.5."""
    commitment = commit(SALT, FHIR_JSON, b'{"value":1.50}')
    with without(commitments.check_commitment, "if commit(salt, media_type, data) != commitment"):
        check_commitment(REF, commitment, SALT, FHIR_JSON, b'{"value":1.5}')
    with pytest.raises(Rejected, match="E_COMMIT_MISMATCH"):
        check_commitment(REF, commitment, SALT, FHIR_JSON, b'{"value":1.5}')


@pytest.mark.attack("T38")
def test_a_record_is_in_the_batch_on_the_chain(without: Without) -> None:
    made = leaves(7)
    root = commitments.record_root(made)
    proof = commitments.prove_record(made, 3)
    false = replace(proof, leaf=replace(proof.leaf, commitment=bytes(32)))
    with without(commitments.check_record, "if found != root"):
        assert check_record(false, root).commitment == bytes(32)
    assert is_refused(lambda: check_record(false, root))


@pytest.mark.attack("T38", "T43")
async def test_records_are_sealed_to_the_key_that_the_chain_knows(without: Without) -> None:
    """A card with another box key, slipped to the custodian, would open every record from then on."""
    chain = Chain()
    chain.tick()
    async with client_of(chain, [HonestNode(chain)], BERG) as client:
        with without(custody.patient_of, "if box not in (None, identity.box)"):
            await custody.patient_of(client, PID, hash32("the thief's box"))
        with pytest.raises(InvalidInput, match="is not the one of patient"):
            await custody.patient_of(client, PID, hash32("the thief's box"))


def test_an_honest_node_is_believed(chain: Chain) -> None:
    """None of the lies above is made by the instrument."""
    header = check_anchor(chain.anchor(chain.height), chain.chain, chain.founding.validators)
    assert header == chain.headers[-1]
    assert len(check_log_reply(chain.log_reply(PID), chain.founding, PID).lines) == 3
