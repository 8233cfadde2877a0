"""F-29, I-15: nothing of any record is in what real nodes keep, log, count or say; scanned byte by byte.

Four processes at their most talkative level take in every sample bundle and the bulk export; people ask, are allowed
and denied, and make mistakes. Then every file of every home but the keys is searched for every string of that.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from importlib.resources import files
from typing import Any

import pytest
from msgspec import inspect

from p2pledger.chain.genesis import OrganisationKind
from p2pledger.client.health import (
    compartments_of,
    grant_consent,
    issue_credential,
    request_access,
    revoke_consent,
)
from p2pledger.client.ingest import Origin, Prepared, prepare_bundle, prepare_ndjson
from p2pledger.client.keyring import OrganisationWallet, Persona
from p2pledger.client.ledger import LedgerClient, open_ledger
from p2pledger.client.records import Patient
from p2pledger.client.vault import Vault
from p2pledger.demo.cluster import Cluster
from p2pledger.health.events import AnyEvent
from p2pledger.health.operations import AnyOperation
from p2pledger.primitives.errors import P2PLedgerError
from tests.node.health import register

pytestmark = pytest.mark.process

SHORTEST = 7
SAMPLES = files("p2pledger") / "samples"
BUNDLES = sorted(
    path.name
    for path in (SAMPLES / "bundles").iterdir()
    if path.name.endswith(".json") and not path.name.startswith(("hospitalInformation", "practitionerInformation"))
)
INFORMATION = sorted(
    path.name for path in (SAMPLES / "bundles").iterdir() if path.name.startswith(("hospitalInf", "practitionerInf"))
)
BULK = ("Patient", "AllergyIntolerance", "Immunization", "Condition", "Device")


def strings_of(value: object) -> Iterator[str]:
    """Every string value in a JSON document, keys apart."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings_of(inner)


def documents() -> Iterator[object]:
    for name in (*BUNDLES, *INFORMATION):
        yield json.loads((SAMPLES / "bundles" / name).read_bytes())
    for kind in BULK:
        for line in (SAMPLES / "bulk10" / f"{kind}.000.ndjson").read_bytes().splitlines():
            yield json.loads(line)


def resources() -> Iterator[dict[str, Any]]:
    for document in documents():
        assert isinstance(document, dict)
        yield from (entry["resource"] for entry in document["entry"]) if "entry" in document else (document,)


def schema_words() -> set[str]:
    """What our own schemas can say: the closed words, names of kinds and of fields of all operations and events."""
    found: set[str] = set()

    def collect(kind: inspect.Type) -> None:
        match kind:
            case inspect.LiteralType():
                found.update(str(value) for value in kind.values)
            case inspect.StructType():
                found.add(kind.cls.__name__)
                for field in kind.fields:
                    found.update(field.name.split("_"))
                    collect(field.type)
            case inspect.UnionType():
                for part in kind.types:
                    collect(part)
            case inspect.TupleType():
                for part in kind.item_types:
                    collect(part)
            case inspect.VarTupleType():
                collect(kind.item_type)

    for schema in (AnyOperation, AnyEvent, OrganisationKind):
        collect(inspect.type_info(schema))
    return found


def found_in(text: bytes, secrets: Iterable[str]) -> set[str]:
    """The strings that stand in the bytes, as UTF-8."""
    runs = b"\n".join(re.findall(rb"[\x20-\x7e\x80-\xff]{%d,}" % SHORTEST, text))
    return {secret for secret in secrets if secret.encode() in runs}


def mistakes(data: bytes) -> Iterator[bytes]:
    """Bundles that are refused, each with the patient's data in the place that is wrong."""
    good: dict[str, Any] = json.loads(data)
    entries = good["entry"]
    name = f"{entries[0]['resource']['name'][0]['family']} of {entries[0]['resource']['address'][0]['city']}"
    identifier = entries[0]["resource"]["id"]
    changes: Sequence[Callable[[dict[str, Any]], object]] = (
        lambda bundle: bundle.update(resourceType=name),
        lambda bundle: bundle.update(type=identifier),
        lambda bundle: bundle.update(entry=name),
        lambda bundle: bundle["entry"].insert(1, identifier),
        lambda bundle: bundle["entry"].append(bundle["entry"][0]),
        lambda bundle: bundle["entry"][1].pop("resource"),
        lambda bundle: bundle["entry"][1].update(resource=identifier),
        lambda bundle: bundle["entry"][1]["resource"].update(resourceType=identifier),
        lambda bundle: bundle["entry"][1]["resource"].update(resourceType={"text": identifier}),
        lambda bundle: bundle["entry"][1]["resource"].update(id={"value": identifier}),
        lambda bundle: bundle["entry"][1]["resource"].update(category=identifier, code=name, meta=identifier),
        lambda bundle: bundle["entry"][0]["resource"].update(birthDate=f"{name} {identifier}"),
        lambda bundle: bundle["entry"][2]["resource"].update(onsetDateTime=f"{identifier}", recordedDate=identifier),
    )
    for change in changes:
        copy = json.loads(data)
        change(copy)
        yield json.dumps(copy).encode()
    yield data[: len(data) // 2]
    yield data.replace(b'"family"', b'"given"', 1)
    yield data.replace(
        b"{", b"{" + json.dumps(identifier).encode() + b":1," + json.dumps(identifier).encode() + b":2,", 1
    )


class Town:
    """A running consortium; its first member takes everything in."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.hospital: OrganisationWallet = cluster.wallet(cluster.names[0])
        self.vault = Vault(cluster.homes[cluster.names[0]] / "vault", self.hospital.custodian.box)
        self.said: list[str] = []
        """Texts of errors, ours and those that nodes answered with."""

    async def client(self, stack: AsyncExitStack, key: Any) -> LedgerClient:
        return await stack.enter_async_context(open_ledger(self.cluster.founding, self.cluster.addresses(), key))

    async def fails(self, client: LedgerClient, operation: Any) -> None:
        """It may be refused or turned away; what is said then is kept."""
        try:
            receipt = await client.submit(operation)
            self.said.append(repr(receipt.executed))
        except P2PLedgerError as error:
            self.said += [str(error), repr(error)]

    def keep(self, prepared: Prepared) -> None:
        self.vault.put_batch(prepared.operation.batch_id, prepared.sealed_manifest, prepared.objects)

    def mistake(self, data: bytes, patient: Patient) -> None:
        try:
            prepare_bundle(data, Origin(self.hospital.custodian), patient)
        except P2PLedgerError as error:
            self.said += [str(error), repr(error)]


async def live(town: Town) -> None:
    """Every bundle, with a consent, a permission, denials and mistakes for each; then the bulk export."""
    async with AsyncExitStack() as stack:
        clerk = await town.client(stack, town.hospital.account)
        doctor = await register(town.cluster, town.hospital, "practitioner")
        await clerk.submit(issue_credential(doctor.did, "physician", 0, 2**50))
        reader = await town.client(stack, doctor.signing)
        for name in BUNDLES:
            await _one_patient(town, clerk, reader, doctor, (SAMPLES / "bundles" / name).read_bytes())
        data = [(SAMPLES / "bulk10" / f"{kind}.000.ndjson").read_bytes() for kind in BULK]
        ids = [json.loads(line)["id"] for line in data[0].splitlines() if line.strip()]
        found: dict[str, Patient] = {}
        for one in ids:
            found[one] = (await register(town.cluster, town.hospital, "patient")).patient
        batches = prepare_ndjson(data, Origin(town.hospital.custodian), found.get)
        for prepared in batches.values():
            town.keep(prepared)
        await clerk.submit(*(prepared.operation for prepared in batches.values()))


async def _one_patient(town: Town, clerk: LedgerClient, reader: LedgerClient, doctor: Persona, data: bytes) -> None:
    patient = await register(town.cluster, town.hospital, "patient")
    prepared = prepare_bundle(data, Origin(town.hospital.custodian), patient.patient)
    town.keep(prepared)
    await clerk.submit(prepared.operation)
    await town.fails(clerk, prepared.operation)  # E_DUP
    for bad in mistakes(data):
        town.mistake(bad, patient.patient)
    everything = compartments_of(prepared.manifest)
    now = (await clerk.block(0)).header.time_ms
    grant, card = grant_consent(patient, doctor.did, everything, ("TREAT",), now - 60_000, now + 10**8)
    async with AsyncExitStack() as stack:
        own = await town.client(stack, patient.signing)
        await own.submit(grant)
        for purpose in ("TREAT", "HRESCH", "BTG"):
            await town.fails(reader, _asked(town, doctor, patient, card, purpose, now))
        await town.fails(own, revoke_consent(bytes(16)))
        log = await own.log(patient.did)
        town.said.append(repr(log))


def _asked(town: Town, doctor: Persona, patient: Persona, card: Any, purpose: Any, now: int) -> Any:
    return request_access(
        doctor,
        town.cluster.founding.chain,
        pid=patient.did,
        compartments=card.handles,
        purpose=purpose,
        not_after_ms=now + 10**6,
        card=card if purpose == "TREAT" else None,
        reason=b"she has not woken up" if purpose == "BTG" else None,
    )


def everything_kept(cluster: Cluster) -> bytes:
    """Every file of every home: stores, vault, log, settings; not the keys."""
    parts = [
        path.read_bytes()
        for home in cluster.homes.values()
        for path in sorted(home.rglob("*"))
        if path.is_file() and path.parent.name != "keys"
    ]
    return b"\n".join(parts)


async def ops_answers(cluster: Cluster) -> bytes:
    targets = ("/metrics", "/readyz?verbose", "/version")
    return "\n".join([await cluster.ops(name, target) for name in cluster.names for target in targets]).encode()


async def test_no_string_of_any_record_leaves_the_vault_in_the_clear(consortium: Callable[..., Cluster]) -> None:
    """F-29, I-15: blocks, receipts, state, journals, vaults, logs, metrics, answers and error texts."""
    cluster = consortium()
    await cluster.start(environ={"P2PLEDGER_NODE__LOG_LEVEL": "debug"})
    await cluster.wait_ready()
    town = Town(cluster)
    before = await ops_answers(cluster)
    await live(town)
    after = await ops_answers(cluster)
    await cluster.stop()
    secrets = {text for document in documents() for text in strings_of(document) if len(text) >= SHORTEST}
    types = {str(entry["resourceType"]) for entry in resources()}  # words of the standard
    names = set(cluster.names) | {card.name for card in cluster.founding.genesis.cards}
    public = (
        names | schema_words() | types | found_in(before, secrets)
    )  # what is said before any record is known is of none
    kept = everything_kept(cluster)
    said = "\n".join(town.said).encode()
    assert len(secrets) > 2_000 and len(BUNDLES) == 6 and len(town.said) > 80
    for where, text in (("kept", kept), ("metrics", after), ("said", said)):
        leaked = found_in(text, secrets)
        assert {secret for secret in leaked if secret not in public} == set(), where
        probe = max(secrets - public, key=len)
        assert found_in(text + b"\0" + probe.encode(), [probe]) == {probe}, "the scanner finds what is there"
