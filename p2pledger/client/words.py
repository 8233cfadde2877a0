"""Codes of the health layer in words that a patient understands (F-75). What has no words here shows its code."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from p2pledger.chain.genesis import Card
from p2pledger.client.export import code_name
from p2pledger.client.health import ConsentCard
from p2pledger.health.commitments import RecordRef
from p2pledger.health.consent import Consent
from p2pledger.health.erasure import Erasure
from p2pledger.health.erasure_operations import Asker, ErasureCertified, ErasureDecided, ErasureRequested
from p2pledger.health.events import (
    AccessDecided,
    AnyEvent,
    BasisKind,
    ConsentGranted,
    ConsentRevoked,
    EmergencyAnchored,
    GuardiansChanged,
    IdentityRekeyed,
    IntegrityAlerted,
    KeyRevoked,
    KeyRotated,
    PatientFrozen,
    PatientUnfrozen,
    RecoveryFinalized,
    RecoveryStarted,
    RecoveryVetoed,
    SharesReleased,
)
from p2pledger.health.integrity import Alert
from p2pledger.health.log import LogLine
from p2pledger.health.operations import ActorOpening, ConsentGrant
from p2pledger.health.purposes import Purpose
from p2pledger.health.vocabulary import ErasureBasis
from p2pledger.primitives.errors import Code

PURPOSES: Mapping[Purpose, str] = {
    "TREAT": "treatment",
    "ETREAT": "emergency treatment",
    "BTG": "emergency, glass broken",
    "COC": "coordination of care",
    "CLINTRL": "clinical trial",
    "HPAYMT": "payment",
    "COVERAGE": "insurance coverage",
    "CLMATTCH": "insurance claim",
    "HRESCH": "research",
    "CLINTRCH": "clinical research",
    "PUBHLTH": "public health",
    "HOPERAT": "hospital operations",
    "HQUALIMP": "quality improvement",
    "HLEGAL": "legal proceedings",
    "PATRQT": "the patient's own request",
    "FAMRQT": "a family member's request",
}

DENIALS: Mapping[Code, str] = {
    Code.E_UNKNOWN_ACTOR: "nobody whom that organisation has registered",
    Code.E_CREDENTIAL: "no valid credential",
    Code.E_SUSPENDED: "suspended",
    Code.E_NO_CONSENT: "no consent",
    Code.E_REVOKED: "the consent was revoked",
    Code.E_EXPIRED: "the consent has expired",
    Code.E_NOT_YET: "the consent does not hold yet",
    Code.E_ACTOR: "the consent means somebody else",
    Code.E_PURPOSE: "not for this purpose",
    Code.E_SCOPE: "more than the consent covers",
    Code.E_LABEL: "sensitive records that the consent leaves out",
    Code.E_USES: "the consent is used up",
    Code.E_BTG_FORBIDDEN: "may not break the glass",
    Code.E_COSIGNERS: "no colleague has signed the emergency access",
    Code.E_DECEASED: "the patient has died",
    Code.E_FROZEN: "guardians have said that the patient's key is stolen",
}

_BASES: Mapping[BasisKind, str] = {
    "none": "nothing",
    "consent": "consent",
    "policy": "the consortium's default policy",
    "btg": "broken glass",
    "owner": "the patient's own records",
    "proxy": "acting for the patient",
}


BASES_OF_REFUSAL: Mapping[ErasureBasis, str] = {
    "legal-hold": "a court or an authority has ordered that it be kept",
    "art17-3-b": "the law or a public task demands it (GDPR Art. 17(3)(b))",
    "art17-3-c": "public health demands it (GDPR Art. 17(3)(c))",
    "art17-3-d": "archives, research or statistics need it (GDPR Art. 17(3)(d))",
    "art17-3-e": "legal claims depend on it (GDPR Art. 17(3)(e))",
    "retention-law": "the law on keeping medical records demands it",
}
_ASKERS: Mapping[Asker, str] = {
    "patient": "the patient",
    "proxy": "somebody who acts for the patient",
    "custodian": "the custodian itself",
}


def purpose(code: Purpose) -> str:
    """`treatment (TREAT)`."""
    return f"{PURPOSES[code]} ({code})" if code in PURPOSES else code


def decision(code: int) -> str:
    """`ALLOWED`, or `DENIED (E_EXPIRED): the consent has expired`."""
    if code == Code.OK:
        return "ALLOWED"
    known = next((text for denial, text in DENIALS.items() if denial == code), None)
    return f"DENIED({code_name(code)})" + (f": {known}" if known else "")


def basis(kind: BasisKind, consent_id: bytes | None) -> str:
    """What an access rests on."""
    return f"consent {consent_id.hex()}" if consent_id is not None else _BASES[kind]


def event(told: AnyEvent) -> str:
    """What a feed tells, in a line."""
    match told:
        case AccessDecided():
            return f"{decision(told.decision)}; {purpose(told.purpose)}; by {basis(told.basis, told.consent_id)}"
        case ConsentGranted():
            return f"consent {told.consent_id.hex()} was given"
        case ConsentRevoked():
            return f"consent {told.consent_id.hex()} was taken back: {told.reason}"
        case KeyRotated() | IdentityRekeyed():
            return "a new key took the place of the old one"
        case SharesReleased():
            return f"validator {told.validator[:4].hex()} released its shares of {told.records} records"
        case ErasureRequested():
            return f"{_ASKERS[told.asker]} asked to erase {told.n_records} records; an answer by {_moment(told.due_ms)}"
        case ErasureDecided():
            return _erasure_decided(told)
        case ErasureCertified():
            last = "; it was the last one: they are erased" if told.is_last else ""
            return f"holder {told.holder.hex()} has deleted the records{last}"
        case GuardiansChanged():
            named = f"{told.threshold} of {told.guardians} guardians are enough"
            return f"{named} for a recovery, from {_moment(told.from_ms)} on"
        case RecoveryStarted():
            how = "no veto ends it" if told.is_beyond_veto else "not you? p2pledger recovery veto"
            return f"guardians have started a recovery: new keys from {_moment(told.due_ms)} on; {how}"
        case RecoveryVetoed():
            return f"the present key has vetoed a recovery ({told.vetoes} so far)"
        case RecoveryFinalized():
            return "a recovery is final: the new key counts, the old one is dead"
        case PatientFrozen():
            return f"guardians have frozen the key until {_moment(told.until_ms)}"
        case PatientUnfrozen():
            return "guardians have ended the freeze"
        case EmergencyAnchored():
            late = "; it should have been here within a day" if told.is_late else ""
            when = _moment(told.opened_ms)
            return f"an emergency summary was opened without the ledger, {when} by the house's own clock{late}"
        case IntegrityAlerted():
            return f"INTEGRITY: other bytes than were committed to were given out of record {told.record.hex()}"
        case KeyRevoked():
            return "the key was revoked"
        case _:
            return re.sub(r"(?<!^)(?=[A-Z])", " ", type(told).__name__).lower()


def _erasure_decided(told: ErasureDecided) -> str:
    late = " (too late)" if told.is_late else ""
    because = "" if told.basis is None else f": {BASES_OF_REFUSAL[told.basis]}"
    match told.verdict:
        case "refuse":
            return f"erasing was refused{late}{because}"
        case "partial":
            return f"{told.n_records} records are being erased by {told.holders} holders, others not{late}{because}"
        case "accept":
            return f"{told.n_records} records are being erased by {told.holders} holders{late}"


def alert(told: Alert, cards: Sequence[Card]) -> str:
    """What an integrity alert says, in a line."""
    terms = told.terms
    record = RecordRef(terms.batch_id, terms.index)
    return (
        f"INTEGRITY ALERT at height {told.height}: key {told.author.hex()} was given other bytes of record {record} "
        f"than {organisation(told.custodian, cards)} had committed to: {terms.found.hex()}, not {terms.expected.hex()}"
    )


def organisation(identifier: bytes, cards: Sequence[Card]) -> str:
    """The public name, or the id of one that the genesis does not have."""
    return next((card.name for card in cards if card.organisation == identifier), identifier.hex())


def actor(opening: ActorOpening | None, cards: Sequence[Card]) -> str:
    """Whom a consent means; None: nobody in particular."""
    if opening is None:
        return "any reader"
    match opening.kind:
        case "organisation":
            return f"anybody of {organisation(opening.handle, cards)}"
        case "role":
            return f"any {opening.handle.rstrip(bytes(1)).decode('ascii', 'replace')}"
        case "group":
            return f"any member of group {opening.handle.hex()}"
        case "person":
            return f"person {opening.handle.hex()}"


def limits(terms: ConsentGrant) -> str:
    """How a consent is limited beside its compartments, as the end of a sentence; empty where it is not."""
    counted = [
        (terms.classes, "kinds of records"),
        (terms.records, "single records"),
        (terms.authors, "authors"),
        (terms.encounters, "encounters"),
    ]
    found = [f"of {len(handles)} {name} only" for handles, name in counted if handles]
    if terms.months is not None:
        found.append(f"from {_month(terms.months[0])} to {_month(terms.months[1])}")
    if terms.labels is not None:
        found.append(f"with {len(terms.labels)} kinds of sensitive records" if terms.labels else "nothing sensitive")
    return "".join(f", {one}" for one in found)


def _month(month: int) -> str:
    return f"{month // 100}-{month % 100:02}"


# Sentences of a patient's wallet (F-75)


def consent(found: Consent, card: ConsentCard | None, cards: Sequence[Card], now_ms: int) -> dict[str, str]:
    """`who`, `what`, `why`, `until` and `now` of a consent; without its card the chain knows no names."""
    terms = found.terms
    if card is not None:
        who = actor(card.actor, cards)
        what = ", ".join(map(str, card.compartments)) or "everything"
    else:
        who = f"{len(terms.actor_commits)} readers named on the consent card" if terms.actor_commits else "any reader"
        what = "everything" if terms.compartments is None else f"{len(terms.compartments)} parts of the chart"
    what += limits(terms)
    if terms.base == "deny":
        what = f"nothing of {what}" + (", with exceptions" if terms.exceptions else "")
    why = ", ".join(purpose(code) for code in terms.purposes) or "any purpose"
    return {"who": who, "what": what, "why": why, "until": _moment(terms.valid_to_ms), "now": _now(found, now_ms)}


def log_line(line: LogLine, cards: Sequence[Card]) -> dict[str, object]:
    """`who`, `why`, `answer`, `because` and `records` of a line."""
    name = organisation(line.organisation, cards)
    who = f"somebody who named {name}" if line.actor is None else f"person {line.actor.hex()} of {name}"
    return {
        "who": who,
        "why": purpose(line.purpose),
        "answer": decision(line.decision),
        "because": basis(line.basis, line.consent_id),
        "records": line.n_records,
    }


def erasure(found: Erasure, cards: Sequence[Card], now_ms: int) -> dict[str, object]:
    """`asked by`, `records` and `now` of a request for erasure (F-26, F-27)."""
    about = {"asked by": _ASKERS[found.request.asker], "records": found.request.n_records}
    return {**about, "now": _erasing(found, cards, now_ms)}


def _erasing(found: Erasure, cards: Sequence[Card], now_ms: int) -> str:
    if found.decided is None:
        late = "OVERDUE: the answer was" if now_ms >= found.due_ms else "waits for an answer,"
        return f"{late} due by {_moment(found.due_ms)}"
    terms = found.decided.terms
    stays = "" if terms.basis is None else f"; the others stay: {BASES_OF_REFUSAL[terms.basis]}"
    match found.status:
        case "requested" | "refused":
            return "refused" + stays.replace("; the others stay", "")
        case "erasing":
            missing = ", ".join(organisation(holder, cards) for holder in found.missing)
            done = f"{len(found.certified)} of {len(found.holders)} holders"
            return f"released to nobody any more; {done} have deleted it, missing: {missing}{stays}"
        case "erased":
            return f"erased, as all {len(found.holders)} holders certify{stays}"


def _now(found: Consent, now_ms: int) -> str:
    uses = f", used {found.uses} of {found.terms.max_uses} times" if found.terms.max_uses else ""
    if found.revoked is not None:
        return f"taken back at height {found.revoked} ({found.revoke_reason})"
    if now_ms >= found.terms.valid_to_ms:
        return f"over{uses}"
    if now_ms < found.terms.valid_from_ms:
        return f"holds from {_moment(found.terms.valid_from_ms)} on"
    return f"holds{uses}"


def _moment(milliseconds: int) -> str:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{milliseconds} ms"
