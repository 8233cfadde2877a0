"""F-29, I-15: nothing of a record reaches the chain, whatever is ingested; scanned byte by byte for all samples."""

import json
import re
from collections.abc import Iterator
from importlib.resources import files

from p2pledger.chain.transaction import parse, sign
from p2pledger.client.health import compartments_of, grant_consent, issue_credential, register_identity, request_access
from p2pledger.client.ingest import Origin, Prepared, prepare_bundle
from p2pledger.client.keyring import OrganisationWallet, Persona, Wallet
from p2pledger.health.application import HealthApplication
from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.ids import Height, Millis, Nonce
from p2pledger.sim.founding import WALL_START_MS
from p2pledger.sim.workload import Workload
from p2pledger.sim.world import World

SHORTEST = 7
PUBLIC = {"transaction", "practitioner", "organisation", "hospital"}
"""Closed code words of our own that also occur in FHIR; they say nothing about anybody."""
BUNDLES = sorted(
    path.name
    for path in (files("p2pledger") / "samples" / "bundles").iterdir()
    if path.name.endswith(".json") and not path.name.startswith(("hospitalInformation", "practitionerInformation"))
)


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


def leaks(haystack: bytes, secrets: set[str]) -> set[str]:
    """The strings of the bundles that stand in the bytes, as UTF-8."""
    runs = b"\n".join(re.findall(rb"[\x20-\x7e\x80-\xff]{%d,}" % SHORTEST, haystack))
    return {secret for secret in secrets if secret.encode() in runs}


class Town:
    """A simulated consortium whose first member is a hospital that takes in every sample bundle."""

    def __init__(self) -> None:
        self.world = World(1, workload=Workload(HealthApplication()))
        self.chain = self.world.consortium.founding.chain
        card = self.world.consortium.founding.genesis.cards[0]
        account = self.world.consortium.accounts[0]
        self.hospital = OrganisationWallet.of_seeds(card.organisation, account.seed, b"\5" * 32)
        self.nonces: dict[bytes, int] = {}
        self.world.run_until(500)

    def run(self, key: SigningKey, operation: Record, *cosigners: SigningKey) -> None:
        """One transaction, executed."""
        self.nonces[key.public] = self.nonces.get(key.public, 0) + 1
        expires = Millis(WALL_START_MS + self.world.now + 3_600_000)
        transaction = parse(sign(self.chain, key, Nonce(self.nonces[key.public]), expires, [operation], cosigners))
        self.world.hand_over(0, transaction)
        self.world.run_until(self.world.now + 300)
        assert self.world.observer.is_executed(transaction.id), operation

    def enter(self, seed: int, kind: str) -> Persona:
        persona = Wallet(bytes([seed]) * 32).at(self.hospital.organisation)
        self.run(persona.signing, register_identity(persona, kind), self.hospital.account)  # type: ignore[arg-type]
        return persona

    def ingest(self, name: str, seed: int) -> tuple[Persona, Prepared]:
        patient = self.enter(seed, "patient")
        data = (files("p2pledger") / "samples" / "bundles" / name).read_bytes()
        prepared = prepare_bundle(data, Origin(self.hospital.custodian), patient.patient)
        self.run(self.hospital.account, prepared.operation)
        return patient, prepared

    def everything(self) -> bytes:
        """All bytes that any node of the consortium keeps: blocks, bodies, receipts, state, journal."""
        node = self.world.nodes[0]
        parts: list[bytes] = []
        for height in range(1, node.ledger.tip() + 1):
            record = node.ledger.block(Height(height))
            assert record is not None and node.engine is not None
            parts.append(encode(record))
            parts += [body for key in record.header.batches if (body := node.ledger.body(key)) is not None]
            parts += [encode(executed) for executed in node.engine.executor.receipts_at(Height(height))]
        assert node.engine is not None
        parts += [key + value for key, value in node.engine.executor.state.scan(b"")]
        parts += [encode(record) for record in node.ledger.journal()]
        return b"\n".join(parts)


def test_no_string_of_any_ingested_bundle_is_in_anything_that_nodes_keep() -> None:
    """F-29, I-15: ids are random, records are commitments, and no schema has a free-text field."""
    town = Town()
    secrets: set[str] = set()
    start = WALL_START_MS + town.world.now
    doctor = town.enter(1, "practitioner")
    town.run(town.hospital.account, issue_credential(doctor.did, "physician", start - 1, start + 10**9))
    for number, name in enumerate(BUNDLES):
        patient, prepared = town.ingest(name, 10 + number)
        data = (files("p2pledger") / "samples" / "bundles" / name).read_bytes()
        secrets |= {text for text in strings_of(json.loads(data)) if len(text) >= SHORTEST}
        everything = compartments_of(prepared.manifest)
        now = WALL_START_MS + town.world.now
        grant, card = grant_consent(patient, doctor.did, everything, ("TREAT",), now - 10_000, now + 10**8)
        town.run(patient.signing, grant)
        request = request_access(
            doctor,
            town.chain,
            pid=patient.did,
            compartments=card.handles,
            purpose="TREAT",
            not_after_ms=now + 10**6,
            card=card,
        )
        town.run(doctor.signing, request)
    assert len(BUNDLES) == 6 and len(secrets) > 2_000
    kept = town.everything()
    public = PUBLIC | {card.name for card in town.world.consortium.founding.genesis.cards}
    assert leaks(kept, secrets) - public == set()
    assert leaks(kept + b"\0" + min(secrets - public).encode(), secrets - public), "the scanner finds what is there"
