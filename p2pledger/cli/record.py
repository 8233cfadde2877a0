"""`p2pledger record`: a custodian seals, keeps, commits and opens health records."""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2pledger.cli.connect import FILE, Connection, with_connection
from p2pledger.cli.output import say
from p2pledger.cli.record_reading import ask, export, get, handover, index
from p2pledger.cli.values import Hex
from p2pledger.primitives.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from p2pledger.client.depositing import Deposited
    from p2pledger.client.ingest import Capsules, Origin, Prepared
    from p2pledger.client.keyring import OrganisationWallet
    from p2pledger.client.ledger import LedgerClient, Receipt
    from p2pledger.client.records import Manifest, Patient
    from p2pledger.client.vault import Progress, Vault
    from p2pledger.health.commitments import RecordRef

_REF = re.compile(r"([0-9a-fA-F]{32})/([0-9]{1,9})")
Given = dict[str | None, tuple[bytes, bytes | None]]
"""FHIR id, or None for the one patient there is → pid, and the box key if it was given."""


@click.group()
def record() -> None:
    """Seal, commit, open and read health records."""


for command in (index, ask, get, handover, export):
    record.add_command(command)


@record.command("ingest")
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option(
    "--patient",
    "patients",
    multiple=True,
    required=True,
    metavar="[FHIR-ID=]PID[:BOXKEY]|[FHIR-ID=]CARD",
    help="Whose records: the patient's card or pid; with its FHIR id, and repeated, for bulk files of several.",
)
@click.option("--one-time", is_flag=True, help="Share each record's key by itself among the validators: no joint key.")
@click.option("--without-release", is_flag=True, help="Seal to custodian and patient only, for good.")
@with_connection
def ingest(
    connection: Connection, files: tuple[Path, ...], patients: tuple[str, ...], one_time: bool, without_release: bool
) -> None:
    """Take in a FHIR Bundle, or bulk export FILES (.ndjson): seal, keep in the home's vault, commit on the chain.

    Each record's key also goes into a capsule that t validators open for whom the chain allows. That is committed to,
    so it cannot be added later: without a joint key on the chain nothing is taken in, unless --one-time or
    --without-release. One-time secrets are deposited with the validators afterwards, until t of them have acknowledged.
    Who keeps copies (vault.replicas) is entered on the chain before the first copy leaves, so that erasures reach it.
    """
    from p2pledger.cli.vault import enter_keepers
    from p2pledger.client.custody import capsules_of, keep_and_commit, one_time_of, patient_of
    from p2pledger.client.ingest import Origin
    from p2pledger.node.vault import replicas_of

    if one_time and without_release:
        raise InvalidInput("say --one-time or --without-release, not both")
    custodian = connection.organisation()
    given = _given(patients)

    async def known(ledger: "LedgerClient") -> "tuple[Capsules | None, dict[str | None, Patient]]":
        capsules = None
        if not without_release:
            capsules = await (one_time_of if one_time else capsules_of)(ledger)
        return capsules, {name: await patient_of(ledger, pid, box) for name, (pid, box) in given.items()}

    capsules, people = connection.ask(custodian.account, known)
    if capsules is None and not without_release:
        raise Unavailable(
            "E_KEY_EPOCH: no checkpoint has a joint key yet, so no reader could ever be given these records; "
            "wait for the validators' key ceremony, or say --one-time, which needs none, or --without-release"
        )
    with progress_bar("sealing") as report:
        batches = _prepared(files, Origin(custodian.custodian, capsules=capsules), people, report)
    vault = vault_of(connection, custodian)
    replicas = replicas_of(connection.home(), vault)

    async def commit(ledger: "LedgerClient") -> "list[Receipt]":
        await enter_keepers(connection, ledger)
        with progress_bar("keeping") as kept:
            return [await keep_and_commit(ledger, vault, one, kept, replicas) for one in batches]

    receipts = connection.ask(custodian.account, commit)
    rows = [
        {
            "batch": one.operation.batch_id,
            "pid": one.operation.pid,
            "records": one.operation.n,
            "height": receipt.executed.receipt.height,
            "root": one.operation.root,
        }
        for one, receipt in zip(batches, receipts, strict=True)
    ]
    connection.session.show_all(rows, ["batch", "pid", "records", "height", "root"])
    say("committed, proven; 'record list BATCH' shows the compartments that a consent can name")
    if one_time:
        deposit_all(connection, vault, [one.operation.batch_id for one in batches])


@record.command("deposit")
@click.argument("batch", type=Hex(16))
@with_connection
def deposit(connection: Connection, batch: bytes) -> None:
    """Show the validators the one-time secrets of BATCH, until enough have acknowledged: what ingest ends with.

    For what was interrupted, or for who was away; acknowledgements that the chain has stay. Status 75: fewer than t.
    """
    custodian = connection.organisation()
    vault = vault_of(connection, custodian)
    if not vault.has_batch(batch):
        raise InvalidInput(f"the vault has no batch {batch.hex()}")
    rows = [
        {"validator": one.organisation, "acknowledged": one.acknowledged, "of": done.records, "reason": one.reason}
        for done in deposit_all(connection, vault, [batch])
        for one in done.custody
    ]
    connection.session.show_all(rows, ["validator", "acknowledged", "of", "reason"])


def deposit_all(connection: Connection, vault: "Vault", batches: "list[bytes]") -> "list[Deposited]":
    """Deposit them, and say who has not acknowledged. Raises Unavailable where they are too few."""
    from p2pledger.client.depositing import demand_enough, deposit

    async def work(ledger: "LedgerClient") -> "list[Deposited]":
        return [await deposit(ledger, vault, batch_id) for batch_id in batches]

    found = connection.ask(connection.organisation().account, work)
    for done in found:
        demand_enough(done)
        missing = [one for one in done.custody if one.reason]
        say(
            f"batch {done.batch_id.hex()}: {len(done.custody) - len(missing)} validators have acknowledged their "
            f"shares of {done.records} records; any {done.threshold} of them open one"
        )
        for one in missing:
            say(f"warning: {one.organisation} acknowledges {one.acknowledged}: {one.reason}")
    return found


@record.command("list")
@click.argument("batch", required=False, type=Hex(16))
@click.option("--compartments", is_flag=True, help="The compartments of BATCH instead of its records.")
@with_connection
def list_(connection: Connection, batch: bytes | None, compartments: bool) -> None:
    """List the batches in the home's vault, or the records of BATCH."""
    vault = vault_of(connection, connection.organisation())
    session = connection.session
    if batch is None:
        rows = [_batch_row(vault.manifest(one)) for one in vault.batches()]
        session.show_all(rows, ["batch", "pid", "records", "months", "compartments"])
    elif compartments:
        session.show_all(_compartment_rows(vault.manifest(batch)), ["compartment", "name", "records"])
    else:
        session.show_all(
            _record_rows(vault.manifest(batch)), ["record", "type", "date", "compartment", "labels", "bytes"]
        )


@record.command("open")
@click.argument("ref", metavar="BATCH/INDEX")
@click.option("--to", "target", type=FILE, help="Write the record here. [default: stdout]")
@click.option("--offline", is_flag=True, help="Do not ask a node for the batch's root: check against the vault alone.")
@with_connection
def open_(connection: Connection, ref: str, target: Path | None, offline: bool) -> None:
    """Open one of our records and check its bytes against the commitment on the chain."""
    from p2pledger.client.custody import committed_root
    from p2pledger.node.home import write_new

    name = ref_of(ref)
    custodian = connection.organisation()

    async def work(ledger: "LedgerClient") -> bytes:
        return await committed_root(ledger, name)

    root = None if offline else connection.ask(custodian.account, work)
    data = vault_of(connection, custodian).open_record(name, root)
    if target is None:
        sys.stdout.buffer.write(data)
    else:
        write_new(target, data, 0o600)
    say(f"record {name}: {len(data)} bytes, as committed {'in the vault' if root is None else 'on the chain, proven'}")


def vault_of(connection: Connection, custodian: "OrganisationWallet") -> "Vault":
    """The vault of the home, in its folder or bucket."""
    from p2pledger.client.vault import Vault
    from p2pledger.node.vault import own_store

    return Vault(own_store(connection.home()), custodian.custodian.box)


def _prepared(
    files: tuple[Path, ...], origin: "Origin", people: "dict[str | None, Patient]", report: "Progress"
) -> "list[Prepared]":
    """Batches ready to be kept; nothing is written yet."""
    from p2pledger.client.ingest import prepare_bundle, prepare_ndjson

    if all(path.suffix == ".ndjson" for path in files):
        batches = list(prepare_ndjson([_read(path) for path in files], origin, _finder(people), report).values())
        if not batches:
            raise InvalidInput("these files hold no record of the given patients")
        return batches
    if len(files) > 1 or len(people) > 1:
        raise InvalidInput("a Bundle is one file about one patient; only .ndjson files come in numbers")
    (patient,) = people.values()
    return [prepare_bundle(_read(files[0]), origin, patient, report)]


def _finder(people: "dict[str | None, Patient]") -> Any:
    """Who a FHIR patient id is. A patient given without one is whoever the files are about, if that is one."""
    seen: set[str] = set()

    def find(fhir_id: str) -> "Patient | None":
        if None not in people:
            return people.get(fhir_id)
        seen.add(fhir_id)
        if len(seen) > 1:
            raise InvalidInput(f"the files are about {' and '.join(sorted(seen))}: say --patient FHIR-ID=PID")
        return people[None]

    return find


def _given(texts: tuple[str, ...]) -> Given:
    """What --patient says; raises InvalidInput."""
    found: Given = {}
    for text in texts:
        name, separator, value = text.rpartition("=")
        key = name if separator else None
        if key in found or (key is None and len(texts) > 1):
            raise InvalidInput(f"--patient {text!r}: several patients need their FHIR ids, each once")
        found[key] = _patient(value)
    return found


def _patient(text: str) -> tuple[bytes, bytes | None]:
    from p2pledger.cli.wallet import read_patient_card

    match = re.fullmatch(r"([0-9a-fA-F]{32})(?::([0-9a-fA-F]{64}))?", text)
    if match is None:
        return read_patient_card(Path(text))
    return bytes.fromhex(match[1]), bytes.fromhex(match[2]) if match[2] else None


def ref_of(text: str) -> "RecordRef":
    """The record in BATCH/INDEX; raises InvalidInput."""
    from p2pledger.health.commitments import RecordRef

    match = _REF.fullmatch(text)
    if match is None:
        raise InvalidInput(f"record {text!r} is not BATCH/INDEX, as 'record list BATCH' shows it")
    return RecordRef(bytes.fromhex(match[1]), int(match[2]))


def _read(path: Path) -> bytes:
    from p2pledger.node.home import read_bounded
    from p2pledger.primitives import limits

    try:
        return read_bounded(path, limits.FHIR_FILE_BYTES_MAX)
    except FileNotFoundError as error:
        raise InvalidInput(f"{path} does not exist") from error


def _batch_row(manifest: "Manifest") -> dict[str, Any]:
    months = [entry.month for entry in manifest.entries]
    return {
        "batch": manifest.batch_id,
        "pid": manifest.pid,
        "records": len(manifest.entries),
        "erased": len(manifest.erased),
        "months": f"{min(months)}-{max(months)}" if months else "-",
        "compartments": sum(name.kind == "compartment" for name in manifest.handles),
    }


def _compartment_rows(manifest: "Manifest") -> list[dict[str, Any]]:
    counts = Counter(entry.compartment for entry in manifest.entries)
    names = sorted((name.name, name.handle) for name in manifest.handles if name.kind == "compartment")
    return [{"compartment": handle, "name": name, "records": counts[handle]} for name, handle in names]


def _record_rows(manifest: "Manifest") -> list[dict[str, Any]]:
    names = {name.handle: name.name for name in manifest.handles}
    return [
        {
            "record": str(manifest.ref(entry.index)),
            "type": entry.resource_type,
            "date": entry.clinical_date,
            "compartment": names[entry.compartment],
            "labels": list(entry.labels),
            "bytes": entry.size,
        }
        for entry in manifest.entries
    ]


@contextmanager
def progress_bar(title: str) -> "Iterator[Progress]":
    """A bar on stderr while something long goes on; nothing where nobody watches."""
    from p2pledger.client.vault import silent

    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
