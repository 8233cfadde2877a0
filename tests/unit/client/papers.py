"""Lines of a log and the papers that open them: what exports and reports are made of in tests."""

from collections.abc import Mapping, Sequence
from dataclasses import replace as replaced
from functools import cache
from typing import Any

from msgspec.structs import replace

from p2pledger.client.disclosures import Named, Openings, Slip, named
from p2pledger.client.health import Compartment, ConsentCard
from p2pledger.health.commitments import RecordRef, commit, scope_commit
from p2pledger.health.consent import Consent
from p2pledger.health.log import LogLine
from p2pledger.health.operations import ActorOpening
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import AccountKey, ChainId, Height
from tests.unit.execution.ledger import hash32, id16, key
from tests.unit.health.world import PID, World

CHAIN = ChainId(hash32("chain"))
CUSTODIAN, READER = id16("Berg"), id16("Tal")
ORGANISATIONS = {CUSTODIAN: "Berg Hospital", READER: "Tal Clinic", id16("Amt"): "Amt Agency"}
PART = b"part two handle!"
NOON = 1_790_000_000_000
"""21 September 2026."""
REASON = "unconscious, no relatives"
SALT = hash32("slip")
RECORDS = (RecordRef(id16("batch"), 1), RecordRef(id16("batch"), 4))


def line(access: str = "access", **changes: Any) -> LogLine:
    """Tal's physician was allowed to treat, by a consent; two records."""
    made = LogLine(
        pid=PID,
        sequence=1,
        previous=bytes(32),
        height=Height(7),
        time_ms=NOON,
        transaction=hash32(f"transaction of {access}"),  # type: ignore[arg-type]
        access_id=id16(access),
        reader=AccountKey(key("doctor").public),
        actor=id16("doctor"),
        organisation=READER,
        purpose="TREAT",
        decision=int(Code.OK),
        basis="consent",
        consent_id=id16("consent"),
        compartments=(PART,),
        labels=(),
        n_records=2,
        scope_commit=scope_commit(SALT, RECORDS),
        reason_commit=None,
    )
    return replace(made, **changes)


def with_reason(access: str = "access", **changes: Any) -> LogLine:
    return line(access, reason_commit=commit(SALT, "text/plain", REASON.encode()), **changes)


def slip(access: str = "access", reason: str | None = None) -> Slip:
    return Slip(id16(access), SALT, RECORDS, reason)


def card() -> ConsentCard:
    """The patient's consent document, which names the part of the chart."""
    return ConsentCard(
        consent_id=id16("consent"),
        pid=PID,
        custodian=CUSTODIAN,
        actor=ActorOpening(hash32("actor"), "person", id16("doctor")),
        purposes=("TREAT",),
        compartments=(Compartment(PART, "condition/ETH+R"),),
        valid_from_ms=0,
        valid_to_ms=NOON * 2,
        salt=hash32("card"),
    )


@cache
def consent() -> Consent:
    """The consent of the card as the chain holds it."""
    terms = replace(World().consent(), consent_id=id16("consent"), doc_commit=card().commitment)
    return Consent(terms=terms, granted=Height(5))


def rows_of(
    *lines: LogLine,
    cards: Sequence[ConsentCard] = (),
    slips: Sequence[Slip] = (),
    names: Mapping[bytes, str] | None = None,
    consents: Sequence[Consent] = (),
) -> list[Named]:
    """The lines as exports get them; Berg is the custodian."""
    openings = Openings.of(cards, (), slips)
    opened = replaced(openings, names={**openings.names, **(names or {})})
    return named(lines, ORGANISATIONS, CUSTODIAN, opened, consents)
