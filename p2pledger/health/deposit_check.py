"""What a validator looks at before it opens its boxes: are these capsules those of the chain's records? (rule 3.6)

Decided by each one alone, from its own final state. Who may deposit is the batch's custodian or author: others have no
business with the capsules, and boxes cost time to open.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from p2pledger.health import deposits, directory, erasure, records
from p2pledger.health.commitments import RecordRef, check_record
from p2pledger.health.deposits import DepositTable
from p2pledger.health.records import Batch
from p2pledger.health.release import RecordOpening, label_of
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, InvalidInput, ProofError
from p2pledger.primitives.ids import AccountKey, Bytes16, ChainId
from p2pledger.state.view import StateView
from p2pledger.threshold.capsule import Label
from p2pledger.threshold.key_release import ShareHolder
from p2pledger.threshold.one_time import ONE_TIME_EPOCH, read_capsule


@dataclass(frozen=True, slots=True)
class Shown:
    """A capsule that is a record's, by the chain."""

    label: Label
    capsule: bytes


@dataclass(frozen=True, slots=True)
class ToCheck:
    """Capsules of one batch for one table."""

    batch_id: Bytes16
    table: DepositTable
    shown: tuple[Shown, ...]


def to_check(
    state: StateView, chain: ChainId, account: AccountKey, openings: Sequence[RecordOpening]
) -> Code | ToCheck:
    """What is to be checked of a deposit, or the first reason against all of it.

    E_FORMAT: not of one batch and one table, or a record twice. E_NOT_FOUND: no such batch or table. E_ROLE: the
    account is neither its custodian's nor its author's. E_COMMIT_MISMATCH: not the chain's record. E_ERASED. E_CAPSULE:
    not the record's capsule, or no one-time capsule.
    """
    batch_id = openings[0].batch_id
    asked = {opening.proof.leaf.index for opening in openings}
    if any(opening.batch_id != batch_id for opening in openings) or len(asked) != len(openings):
        return Code.E_FORMAT
    batch = records.batch_of(batch_id, state)
    if batch is None:
        return Code.E_NOT_FOUND
    if not may_deposit(account, batch, state):
        return Code.E_ROLE
    shown = []
    tables = set()
    for opening in openings:
        one = _shown(opening, batch, chain, state)
        if isinstance(one, Code):
            return one
        shown.append(one)
        try:
            tables.add(read_capsule(opening.capsule).table)
        except InvalidInput:
            return Code.E_CAPSULE
    if len(tables) != 1:
        return Code.E_FORMAT
    table = deposits.table_of(tables.pop(), state)
    return Code.E_NOT_FOUND if table is None else ToCheck(batch_id, table, tuple(shown))


def may_deposit(account: AccountKey, batch: Batch, state: StateView) -> bool:
    """Whether this is the present key of the batch's custodian or author, in good standing."""
    member = directory.organisation_by_key(account, state)
    return member is not None and member.is_active and member.id in (batch.terms.custodian, batch.terms.author_org)


def _shown(opening: RecordOpening, batch: Batch, chain: ChainId, state: StateView) -> Shown | Code:
    terms = batch.terms
    if opening.key_epoch != ONE_TIME_EPOCH:
        return Code.E_CAPSULE
    if opening.proof.size != terms.n:
        return Code.E_COMMIT_MISMATCH
    try:
        leaf = check_record(opening.proof, terms.root)
    except ProofError:
        return Code.E_COMMIT_MISMATCH
    if erasure.is_erased(terms.batch_id, leaf.index, state):
        return Code.E_ERASED
    if sha256(opening.capsule) != leaf.capsule:
        return Code.E_CAPSULE
    ref = RecordRef(terms.batch_id, leaf.index)
    return Shown(label_of(ref, terms.pid, terms.custodian, chain, ONE_TIME_EPOCH), opening.capsule)


def good_of(work: ToCheck, holder: ShareHolder) -> tuple[int, ...]:
    """The indices of the records of which this holder has got its share; nothing but the shares is looked at.

    What is left out was dealt to open for nobody, or for somebody else: it is never acknowledged.
    """
    good = []
    for one in work.shown:
        try:
            holder.check(one.capsule, one.label)
        except (InvalidInput, ProofError):
            continue
        good.append(one.label.index)
    return tuple(good)
