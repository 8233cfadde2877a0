"""A FHIR Consent as a grant on the chain: references become commitments and handles, or the consent is refused.

Who and what a reference means only patient and custodian know. They write it down once in a *names file*, JSON without
secrets, which `p2pledger consent names` makes from a custodian's keys and manifests:

    {"format": "p2pledger/names/1",
     "actors": {"Practitioner/7": "<did>", "Organization/1": "<id>", "Group/er": "<handle>"},
     "handles": {"label/PSY": "…", "class/allergy": "…", "record/Observation/9": "…", "author/Practitioner/7": "…",
                 "encounter/Encounter/3": "…"}}

A reference without a name is refused with its element: a consent is never granted with a part left out.
"""

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from p2pledger.client.health import ConsentCard
from p2pledger.client.records import Custodian, Manifest, encounter_name
from p2pledger.fhir.compartments import CLASSES, SENSITIVE
from p2pledger.fhir.pcf import Named, PcfConsent, Provision, read_consent
from p2pledger.health.commitments import FHIR_JSON, SALT_BYTES, commit
from p2pledger.health.operations import (
    ActorOpening,
    ConsentGrant,
    PolicyException,
    actor_commit,
    record_handle,
)
from p2pledger.health.purposes import Purpose
from p2pledger.primitives.errors import Code, InvalidInput, Rejected
from p2pledger.primitives.ids import Bytes16, Millis

_FORMAT = "p2pledger/names/1"
_NAMES_CHARACTERS_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Names:
    """What references and words of a consent stand for on the chain."""

    actors: Mapping[str, bytes]
    """FHIR reference to a did, an organisation's id or a group's handle."""
    handles: Mapping[str, bytes]
    """`kind/name` to a handle; kinds are label, class, record, author and encounter."""

    def actor(self, named: Named) -> bytes:
        """Raises Rejected(E_UNENFORCEABLE) naming the element."""
        if named.reference not in self.actors:
            raise _unnamed(named.element, named.reference)
        return self.actors[named.reference]

    def handle(self, kind: str, name: str, element: str) -> bytes:
        """Raises Rejected(E_UNENFORCEABLE) naming the element."""
        key = f"{kind}/{name}"
        if key not in self.handles:
            raise _unnamed(element, key)
        return self.handles[key]

    def dump(self) -> str:
        """The names file, always spelled the same."""
        parts = {"actors": self.actors, "handles": self.handles}
        shown = {what: {name: value.hex() for name, value in sorted(some.items())} for what, some in parts.items()}
        return json.dumps({"format": _FORMAT, **shown}, indent=1) + "\n"

    @staticmethod
    def load(text: str) -> "Names":
        """The names in a file; raises InvalidInput naming what is wrong."""
        if len(text) > _NAMES_CHARACTERS_MAX:
            raise InvalidInput(f"names file of {len(text)} characters, the limit is {_NAMES_CHARACTERS_MAX}")
        try:
            parts = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"not a names file: {error}") from error
        if not isinstance(parts, dict) or parts.get("format") != _FORMAT:
            raise InvalidInput(f"not a names file: this version reads format {_FORMAT!r}")
        return Names(_handles_in(parts, "actors"), _handles_in(parts, "handles"))


@dataclass(frozen=True, slots=True)
class Granted:
    """A consent that is ready to be submitted, and the cards for those whom it means."""

    operation: ConsentGrant
    cards: tuple[ConsentCard, ...]


@dataclass(frozen=True, slots=True)
class Patient:
    """Whom a consent document is about on this chain."""

    reference: str
    """As the resource names the patient."""
    pid: bytes
    custodian: bytes


def grant_of_document(
    data: bytes, patient: Patient, names: Names, default_policy: str, *, is_guardian: bool = False
) -> Granted:
    """The grant that says what the Consent resource says, to be sent by whoever performed it (F-05, F-07).

    Raises InvalidInput for what is no Consent or about another patient, Rejected(E_CONSENT_INCOMPLETE) and
    Rejected(E_UNENFORCEABLE) naming the element.
    """
    read = read_consent(data)
    if read.patient != patient.reference:
        raise InvalidInput(f"the consent is about {read.patient}, not about {patient.reference}")
    if read.default_policy not in (None, default_policy):
        raise _unenforceable(
            "Consent.policy[0].uri", f"it is given under {read.default_policy}, the chain's policy is {default_policy}"
        )
    openings = _openings(read, names)
    salt = secrets.token_bytes(SALT_BYTES)
    whole = _scope(read.whole, names, "Consent.provision")
    operation = ConsentGrant(
        consent_id=Bytes16(secrets.token_bytes(16)),
        pid=Bytes16(patient.pid),
        capacity="patient" if read.is_own else "guardian" if is_guardian else "proxy",
        base=read.base,
        actor_commits=_commits(read.whole.actors, openings),
        purposes=_purposes(read.whole, "Consent.provision"),
        compartments=None,
        valid_from_ms=Millis(read.valid_from_ms),
        valid_to_ms=Millis(read.valid_to_ms),
        max_uses=0,
        exceptions=tuple(
            PolicyException(
                actor_commits=_commits(one.actors, openings),
                purposes=_purposes(one, "Consent.provision.provision"),
                **_scope(one, names, "Consent.provision.provision"),
            )
            for one in read.exceptions
        ),
        btg=read.btg,
        doc_commit=commit(salt, FHIR_JSON, data),
        evidence_commit=commit(salt, "text/plain", f"performed by {read.performer}".encode()),
        btg_commits=_commits(read.btg_actors, openings),
        **whole,
    )
    meant: Iterable[ActorOpening | None] = openings.values() or [None]
    cards = [
        ConsentCard(
            consent_id=operation.consent_id,
            pid=patient.pid,
            custodian=patient.custodian,
            actor=opening,
            purposes=operation.purposes,
            compartments=(),
            valid_from_ms=read.valid_from_ms,
            valid_to_ms=read.valid_to_ms,
            salt=salt,
            document=data.decode(),
        )
        for opening in meant
    ]
    return Granted(operation, tuple(cards))


def _openings(read: PcfConsent, names: Names) -> dict[str, ActorOpening]:
    """One for each actor that the consent names anywhere, so that one card serves all its parts."""
    parts = (read.whole.actors, read.btg_actors, *(one.actors for one in read.exceptions))
    found: dict[str, ActorOpening] = {}
    for named in (one for actors in parts for one in actors):
        if named.reference not in found:
            opened: Any = named.kind
            found[named.reference] = ActorOpening(secrets.token_bytes(SALT_BYTES), opened, names.actor(named))
    return found


def _commits(actors: Sequence[Named], openings: Mapping[str, ActorOpening]) -> tuple[bytes, ...]:
    return tuple(sorted({actor_commit(openings[named.reference]) for named in actors}))


def _purposes(one: Provision, element: str) -> tuple[Purpose, ...]:
    known: dict[str, Purpose] = {purpose: purpose for purpose in get_args(Purpose)}
    for purpose in one.purposes:
        if purpose not in known:
            raise _unenforceable(f"{element}.purpose", f"{purpose!r} is no purpose of use")
    return tuple(known[purpose] for purpose in dict.fromkeys(one.purposes))


def _scope(one: Provision, names: Names, element: str) -> dict[str, Any]:
    def named(kind: str) -> tuple[bytes, ...]:
        found = [names.handle(kind, datum.reference, datum.element) for datum in one.data if datum.kind == kind]
        return tuple(sorted(set(found)))

    def handles(kind: str, of: Sequence[str] | None, where: str) -> tuple[bytes, ...] | None:
        return None if of is None else tuple(sorted(names.handle(kind, name, f"{element}.{where}") for name in of))

    return {
        "labels": handles("label", one.labels, "securityLabel"),
        "classes": handles("class", one.classes, "class"),
        "months": one.months,
        "records": named("record"),
        "authors": named("author"),
        "encounters": named("encounter"),
    }


def names_of(custodian: Custodian, pid: bytes, manifests: Sequence[Manifest]) -> Names:
    """What a custodian can say about a patient's chart: labels and classes, records, authors and encounters."""
    handles = {f"label/{label}": custodian.handle(pid, "label", label) for label in ("R", *sorted(SENSITIVE))}
    handles |= {f"class/{name}": custodian.handle(pid, "class", name) for name in CLASSES}
    for manifest in manifests:
        for entry in manifest.entries:
            if entry.resource_id is not None:
                record = f"record/{entry.resource_type}/{entry.resource_id}"
                handles[record] = record_handle(manifest.batch_id, entry.index)
            if entry.encounter is not None:
                encounter = encounter_name(entry.encounter)
                handles[f"encounter/{encounter}"] = custodian.handle(pid, "encounter", encounter)
            for author in entry.authors:
                handles[f"author/{author}"] = custodian.handle(pid, "author", author)
    return Names({}, handles)


def _handles_in(parts: Mapping[str, Any], name: str) -> dict[str, bytes]:
    values = parts.get(name)
    if not isinstance(values, dict):
        raise InvalidInput(f"names file: {name} is no object")
    for key, value in values.items():
        if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{32}", value):
            raise InvalidInput(f"names file: {name} {key!r} is not 32 hexadecimal digits")
    return {key: bytes.fromhex(value) for key, value in values.items()}


def _unnamed(element: str, name: str) -> Rejected:
    return _unenforceable(element, f"the names file does not say what {name} is on the chain")


def _unenforceable(element: str, why: str) -> Rejected:
    return Rejected(Code.E_UNENFORCEABLE, f"{element}: {why}")
