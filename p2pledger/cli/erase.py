"""`p2pledger erase`: ask for erasure, decide it, carry it out, certify it, and see where it stands (F-26, F-27)."""

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from p2pledger.cli.connect import FILE, Connection, with_connection
from p2pledger.cli.output import say
from p2pledger.cli.values import Hex, moment
from p2pledger.health.vocabulary import ErasureBasis
from p2pledger.primitives.errors import Code, InvalidInput, Refused, Rejected, Unavailable

if TYPE_CHECKING:
    from p2pledger.client.backup import Backups
    from p2pledger.client.erasure import EraseOrder, EraseReport, House, Papers
    from p2pledger.client.ledger import LedgerClient, Receipt
    from p2pledger.client.records import Patient
    from p2pledger.health.commitments import RecordRef
    from p2pledger.health.erasure import Erasure
    from p2pledger.health.erasure_operations import ErasedPart
    from p2pledger.primitives.codec import Record

_ID = click.argument("erase_id", metavar="ERASURE", type=Hex(16))
_BASES = click.Choice(get_args(ErasureBasis))
_REFS = re.compile(r"([0-9a-fA-F]{32})(?:/([0-9]{1,5})(?:-([0-9]{1,5}))?)?")


@click.group()
def erase() -> None:
    """Erase records for good: ask, decide, carry out, certify."""


@erase.command("request")
@click.option(
    "--record",
    "texts",
    required=True,
    multiple=True,
    metavar="BATCH/INDEX[-LAST]",
    help="What to erase; repeat. The custodian may say BATCH alone.",
)
@click.option("--pid", type=Hex(16), help="Of whom, as a proxy or custodian. [default: the wallet's owner]")
@click.option("--custodian", "name", metavar="NAME", help="Whose records, as a proxy. [default: --at]")
@click.option("--letter", type=FILE, required=True, help="Write the letter here, which tells the custodian which ones.")
@with_connection
def request(connection: Connection, texts: tuple[str, ...], pid: bytes | None, name: str | None, letter: Path) -> None:
    """Ask for erasure: as the patient, as its proxy, or, without --wallet, as the custodian whose duty has ended.

    The chain learns how many records are meant, and not which. The letter is sealed to the custodian; hand it over by
    any way.
    """
    from p2pledger.client.erasure import EraseLetter
    from p2pledger.health.erasure_operations import Asker
    from p2pledger.node.home import write_new

    asker: Asker
    if connection.wallet_file is None:
        home, asker = connection.home(), "custodian"
        box, sizes = home.card.box, _batch_size(connection)
        if pid is None:
            raise InvalidInput("say about whom: --pid HEX")
    else:
        persona = connection.persona()
        asker = "patient" if pid in (None, persona.did) else "proxy"
        pid = persona.did if pid is None else pid
        cards = connection.founding().genesis.cards
        box = (
            connection.card(name).box
            if name is not None
            else next(card.box for card in cards if card.organisation == persona.organisation)
        )
        sizes = _no_size
    made = EraseLetter.of(pid, [ref for text in texts for ref in _refs(text, sizes)])
    write_new(letter, made.sealed(box), 0o600)
    _submit(connection, made.request(asker))
    say(f"erasure {made.erase_id.hex()}: hand {letter} to the custodian; 'erase status' shows the answer")


@erase.command("decide")
@_ID
@click.option("--letter", type=FILE, help="What the patient wrote; needed unless everything is refused.")
@click.option("--refuse", is_flag=True, help="Erase nothing.")
@click.option("--keep", "kept", multiple=True, metavar="BATCH/INDEX[-LAST]", help="Keep these; repeat.")
@click.option("--basis", type=_BASES, help="Why something is kept.")
@click.option("--reason", type=Hex(32), help="Commitment to the written answer to the patient.")
@with_connection
def decide(
    connection: Connection,
    erase_id: bytes,
    letter: Path | None,
    refuse: bool,
    kept: tuple[str, ...],
    basis: Any,
    reason: bytes | None,
) -> None:
    """Decide as the custodian. What is accepted is released to nobody any more from the block of this decision on.

    Who keeps copies for this house (vault.replicas) and is not entered as a holder yet is entered before.
    """
    from p2pledger.cli.vault import enter_keepers
    from p2pledger.client.erasure import EraseLetter, parts_of
    from p2pledger.health.erasure_operations import EraseDecision
    from p2pledger.node.home import read_bounded
    from p2pledger.primitives.ids import Bytes16, Bytes32

    if (basis is None) == (refuse or bool(kept)):
        raise InvalidInput("--refuse and --keep need a --basis, and nothing else does")
    why = None if reason is None else Bytes32(reason)
    if refuse:
        _submit(connection, EraseDecision(Bytes16(erase_id), "refuse", basis, (), None, why))
        return
    if letter is None:
        raise InvalidInput("say --letter FILE: only the letter says which records are meant")
    asked = _asked(connection, erase_id)
    box = connection.organisation().custodian.box
    opened = EraseLetter.opened(read_bounded(letter, 4 * 1024 * 1024), box, asked.request)
    sizes = _batch_size(connection)
    staying = {ref for text in kept for ref in _refs(text, sizes)}
    unknown = staying - set(opened.refs)
    if unknown:
        raise InvalidInput(f"record {min(map(str, unknown))} is not among those to erase")
    connection.ask(connection.organisation().account, partial(enter_keepers, connection))
    parts = parts_of([ref for ref in opened.refs if ref not in staying], sizes)
    salt = None if staying else opened.salt
    verdict = EraseDecision(Bytes16(erase_id), "partial" if staying else "accept", basis, parts, salt, why)
    _submit(connection, verdict)
    say(f"next: p2pledger erase run {erase_id.hex()}")


@erase.command("run")
@_ID
@click.option("--order-to", type=FILE, help="Write the order for those who keep replicas here.")
@click.option(
    "--compact", "compacts", is_flag=True, help="Then compact the stores of the stopped node (--node another)."
)
@with_connection
def run(connection: Connection, erase_id: bytes, order_to: Path | None, compacts: bool) -> None:
    """Delete in this house what the chain has decided: vault, manifests, backups. After a crash do it again.

    An erasure ends with a compacting copy of the node's stores, which leaves no freed pages behind: with --compact
    when this house's node is stopped, or later by 'p2pledger compact'.
    """
    from p2pledger.cli.clock import now_ms
    from p2pledger.cli.compact import compacted_stores
    from p2pledger.cli.guardian import cards_in
    from p2pledger.client.custody import patient_of
    from p2pledger.client.erasure import carry_out, proven_erasure, sign_order
    from p2pledger.node.home import write_new
    from p2pledger.primitives.codec import encode

    organisation = connection.organisation()

    async def work(ledger: "LedgerClient") -> "tuple[Erasure, Patient]":
        asked = await proven_erasure(ledger, erase_id)
        return asked, await patient_of(ledger, asked.request.pid)

    asked, patient = connection.ask(organisation.account, work)
    if asked.custodian != organisation.custodian.organisation:
        raise InvalidInput(
            f"erasure {erase_id.hex()} is another custodian's: a keeper of replicas says 'erase replica'"
        )
    if asked.status == "refused":
        raise InvalidInput(f"erasure {erase_id.hex()} was refused: there is nothing to delete")
    house = _house(connection)
    for step in carry_out(asked, house, patient, now_ms()):
        say(f"done: {step}")
    order = house.papers.order(erase_id)
    if order is not None:
        _erase_copies(connection, house, order)
    if order_to is not None:
        if order is None:
            raise InvalidInput(f"erasure {erase_id.hex()} is certified here already: its order is gone")
        write_new(order_to, encode(sign_order(order, house.vault.store, house.chain, organisation.account)), 0o600)
        say(f"every keeper of replicas runs: p2pledger erase replica {erase_id.hex()} --order {order_to.name}")
    _show_report(connection, house.papers.report(erase_id))
    card = cards_in(connection).of(asked.request.pid)
    if card is not None:
        say(
            f"a copy of the guardians' card of this patient lies in {card}: it opens no record; delete it with the last"
        )
    if compacts:
        for store in compacted_stores(connection.session):
            say(f"done: {store['store']} compacted, {store['before']} bytes before, {store['after']} after")
        say(f"next: p2pledger erase certify {erase_id.hex()}")
    else:
        again = "the erasure ends with the compacting copy: stop the node, 'p2pledger compact', start it"
        say(f"next: p2pledger erase certify {erase_id.hex()}; {again}")


@erase.command("replica")
@_ID
@click.option("--order", "order_file", type=FILE, required=True, help="The custodian's order.")
@with_connection
def replica(connection: Connection, erase_id: bytes, order_file: Path) -> None:
    """Delete the copies that this house keeps for another custodian. After a crash do it again."""
    from p2pledger.cli.clock import now_ms
    from p2pledger.client.erasure import EraseReport, account_of, check_order, erase_in_replica, proven_erasure, remains
    from p2pledger.node.home import read_bounded
    from p2pledger.node.vault import copies_of
    from p2pledger.primitives.ids import Bytes16, Millis

    organisation = connection.organisation()

    async def work(ledger: "LedgerClient") -> "tuple[Erasure, bytes]":
        asked = await proven_erasure(ledger, erase_id)
        return asked, await account_of(ledger, asked.custodian)

    asked, account = connection.ask(organisation.account, work)
    chain = connection.founding().chain
    signed = check_order(read_bounded(order_file, 4 * 1024 * 1024), chain, account, asked)
    order, papers = signed.order, _papers(connection)
    copies = copies_of(connection.home(), asked.custodian)
    steps = []
    for step in erase_in_replica(signed, copies):
        steps.append(step)
        say(f"done: {step}")
    assert not remains(order, [copies]), "what a store has deleted is not there"
    if papers.report(erase_id) is None:
        holder = Bytes16(organisation.custodian.organisation)
        papers.keep(EraseReport(Bytes16(erase_id), holder, len(order.names), tuple(steps), Millis(now_ms())))
    _show_report(connection, papers.report(erase_id))
    say(f"next: p2pledger erase certify {erase_id.hex()}")


@erase.command("certify")
@_ID
@with_connection
def certify(connection: Connection, erase_id: bytes) -> None:
    """Sign on the chain that nothing of it is left in this house; 'erase run' or 'erase replica' comes first."""
    from p2pledger.cli.tx import show_receipt
    from p2pledger.client.erasure import certify as sign

    papers = _papers(connection)
    account = connection.organisation().account

    async def work(ledger: "LedgerClient") -> "Receipt | None":
        return await sign(ledger, papers, erase_id)

    receipt = connection.ask(account, work)
    if receipt is None:
        say("the chain has this certificate already")
    else:
        show_receipt(connection, receipt.executed)


@erase.command("recheck")
@with_connection
def recheck(connection: Connection) -> None:
    """Delete again whatever of erased records a restore has brought back; by what the chain proves of each batch."""
    from p2pledger.client.custody import patient_of
    from p2pledger.client.erasure import erased_parts
    from p2pledger.client.erasure import recheck as delete_again

    house = _house(connection)
    batches = list(house.vault.batches())

    async def work(ledger: "LedgerClient") -> "dict[ErasedPart, Patient]":
        parts = await erased_parts(ledger, batches)
        return {part: await patient_of(ledger, house.vault.manifest(part.batch_id).pid) for part in parts}

    parts = connection.ask(connection.organisation().account, work)
    deleted = delete_again(house, parts)
    connection.session.show({"batches": len(batches), "with erased records": len(parts), "deleted again": deleted})


@erase.command("status")
@click.option("--pid", type=Hex(16), help="About whom. [default: the wallet's owner; for members all unfinished ones]")
@with_connection
def status(connection: Connection, pid: bytes | None) -> None:
    """Say where requests for erasure stand, the first due first: overdue ones are in front."""
    from p2pledger.cli.clock import now_ms
    from p2pledger.client import words

    if connection.wallet_file is not None and pid is None:
        pid = connection.persona().did
    cards = connection.founding().genesis.cards
    rows = [
        {
            "erasure": one.request.erase_id,
            "pid": one.request.pid,
            "asked": moment(one.requested_ms),
            "due": moment(one.due_ms),
            "overdue": one.decided is None and now_ms() >= one.due_ms,
            "status": one.status,
            "missing": [words.organisation(holder, cards) for holder in one.missing],
            **words.erasure(one, cards, now_ms()),
        }
        for one in _erasures(connection, pid)
    ]
    connection.session.show_all(rows, ["erasure", "asked by", "records", "due", "status", "now"])


@erase.command("holder")
@click.argument("name")
@click.option("--leave", is_flag=True, help="This house keeps no copies for NAME any more.")
@with_connection
def holder(connection: Connection, name: str, leave: bool) -> None:
    """Register that NAME keeps replicas for this custodian, so that it has to certify erasures, too.

    'record ingest', 'vault repair' and 'erase decide' do so for all of vault.replicas; this is for keepers elsewhere.
    """
    from p2pledger.health.erasure_operations import HolderRegister
    from p2pledger.primitives.ids import Bytes16

    own, other = connection.organisation().custodian.organisation, connection.card(name).organisation
    custodian, keeper = (other, own) if leave else (own, other)
    try:
        _submit(connection, HolderRegister(Bytes16(custodian), Bytes16(keeper), not leave))
    except Refused as error:
        if leave or error.code is not Code.E_DUP:
            raise
        say(f"{name} is registered already")


def _submit(connection: Connection, operation: "Record") -> None:
    from p2pledger.cli.tx import show_receipt

    async def work(ledger: "LedgerClient") -> "Receipt":
        return await ledger.submit(operation)

    show_receipt(connection, connection.ask(connection.signer(), work).executed)


def _erasures(connection: Connection, pid: bytes | None) -> "list[Erasure]":
    async def work(ledger: "LedgerClient") -> "list[Erasure]":
        return await ledger.erasures(pid)

    return connection.ask(connection.signer(), work)


def _asked(connection: Connection, erase_id: bytes) -> "Erasure":
    for one in _erasures(connection, None):
        if one.request.erase_id == erase_id:
            return one
    raise Rejected(Code.E_NOT_FOUND, f"no request {erase_id.hex()} waits for a decision; see 'erase status'")


def _house(connection: Connection) -> "House":
    from p2pledger.cli.record import vault_of
    from p2pledger.client.erasure import House

    organisation = connection.organisation()
    vault, chain = vault_of(connection, organisation), connection.founding().chain
    return House(vault, chain, organisation.custodian, backups_of(connection), _papers(connection))


def backups_of(connection: Connection) -> "Backups":
    """The keys of the backups in the home."""
    from p2pledger.client.backup import Backups

    return Backups(connection.session.home / "vault-backups")


def _papers(connection: Connection) -> "Papers":
    from p2pledger.client.erasure import Papers

    return Papers(connection.session.home / "erasures")


def _erase_copies(connection: Connection, house: "House", order: "EraseOrder") -> None:
    """At the replicas that answer; those that do not, and all of them to be sure, get the order by hand."""
    import trio

    from p2pledger.node.vault import replicas_of

    replicas = replicas_of(connection.home(), house.vault)
    if not replicas.holders:
        return
    try:
        trio.run(replicas.delete, order.names)
        trio.run(replicas.keep, [batch for batch in order.batches if house.vault.has_batch(batch)])
        say(f"done: copies at {', '.join(holder.name for holder in replicas.holders)}")
    except Unavailable as error:
        say(f"not done: {error}; run it again, or hand over the order (--order-to)")


def _show_report(connection: Connection, report: "EraseReport | None") -> None:
    assert report is not None, "what was carried out has its report"
    connection.session.show(
        {
            "erasure": report.erase_id,
            "deleted": report.names,
            "steps": list(report.steps),
            "finished": moment(report.finished_ms),
            "report": report.certificate().report,
        }
    )


def _refs(text: str, size: Any) -> "list[RecordRef]":
    """BATCH/INDEX, BATCH/FIRST-LAST, or BATCH where its size is known. Raises InvalidInput."""
    from p2pledger.health.commitments import RecordRef

    match = _REFS.fullmatch(text)
    if match is None:
        raise InvalidInput(f"record {text!r} is not BATCH/INDEX or BATCH/FIRST-LAST")
    batch = bytes.fromhex(match[1])
    if match[2] is None:
        return [RecordRef(batch, index) for index in range(size(batch))]
    first = int(match[2])
    last = int(match[3] or match[2])
    if last < first:
        raise InvalidInput(f"record {text!r}: {last} stands before {first}")
    return [RecordRef(batch, index) for index in range(first, last + 1)]


def _no_size(batch: bytes) -> int:
    raise InvalidInput(f"batch {batch.hex()}: only its custodian knows its size; say {batch.hex()}/FIRST-LAST")


def _batch_size(connection: Connection) -> Any:
    """How many records a batch of this house's vault has."""
    from p2pledger.cli.record import vault_of

    vault = vault_of(connection, connection.organisation())

    def size(batch: bytes) -> int:
        manifest = vault.manifest(batch)
        return len(manifest.entries) + len(manifest.erased)

    return size
