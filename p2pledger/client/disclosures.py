"""Lines of an access log as people and other programs need them: names, what was opened, who counts as recipient.

The chain holds commitments and handles. What stands behind them comes from whoever has it: names of compartments and
labels from consent cards and manifests, record list and reason from the reader's slip. Nothing is taken from a card or
a slip that does not open what the chain holds.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from p2pledger.client import words
from p2pledger.client.health import ConsentCard
from p2pledger.client.records import Manifest
from p2pledger.client.releases import NOTHING_RELEASED, Release, Releases
from p2pledger.health.commitments import SALT_BYTES, RecordRef, commit, scope_commit
from p2pledger.health.consent import Consent
from p2pledger.health.log import LogLine
from p2pledger.primitives.errors import Code, InvalidInput

_SLIP = "p2pledger/access-slip/1"
_SLIP_CHARACTERS_MAX = 1024 * 1024

PART2_LABELS = frozenset({"ETH", "ETHUD", "OPIOIDUD", "42CFRPart2"})
"""Labels of records about substance use, the scope of 42 CFR Part 2."""
PART2_NOTICE = "42 CFR part 2 prohibits unauthorized use or disclosure of these records."
PART2_NOTICE_REFERENCE = "42 CFR 2.32(a)(2)"

Exemption = Literal["individual", "treatment, payment or operations", "authorised", "use by the custodian itself"]
"""Why a disclosure need not be accounted for, 45 CFR 164.528(a)(1); the last one is none at all."""

_TPO: frozenset[str] = frozenset(
    {"TREAT", "ETREAT", "ERTREAT", "BTG", "COC", "POPHLTH"}
    | {"HPAYMT", "CLMATTCH", "COVAUTH", "COVERAGE", "ELIGDTRM", "ELIGVER", "ENROLLM", "REMITADV"}
    | {"HOPERAT", "CAREMGT", "HACCRED", "HCOMPL", "HDIRECT", "HDM", "HOUTCOMS", "HPRGRP", "HQUALIMP", "HSYSADMIN"}
    | {"LABELING", "METAMGT", "MEMADMIN", "PATADMIN", "PATSFTY", "PERFMSR", "RECORDMGT", "SYSDEV", "HTEST", "TRAIN"}
)
"""Not among them, though v3-ActReason has them under HOPERAT or TREAT: donation, fraud, government, decedents, legal
proceedings, the military, and trials."""
_INDIVIDUAL: frozenset[str] = frozenset({"PATRQT", "FAMRQT", "PWATRNY"})


@dataclass(frozen=True, slots=True)
class Slip:
    """What opens one access: the reader keeps it and hands it to the patient or the custodian who ask (F-08)."""

    access_id: bytes
    salt: bytes = field(repr=False)
    records: tuple[RecordRef, ...]
    reason: str | None

    def dump(self) -> str:
        """The slip as JSON, always spelled the same."""
        document = {
            "format": _SLIP,
            "access": self.access_id.hex(),
            "salt": self.salt.hex(),
            "records": [f"{ref.batch_id.hex()}/{ref.index}" for ref in self.records],
            "reason": self.reason,
        }
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"

    @staticmethod
    def load(text: str) -> "Slip":
        """The slip in a text; raises InvalidInput."""
        if len(text) > _SLIP_CHARACTERS_MAX:
            raise InvalidInput(f"access slip of {len(text)} characters, the limit is {_SLIP_CHARACTERS_MAX}")
        try:
            parts: Mapping[str, Any] = json.loads(text)
            if parts["format"] != _SLIP:
                raise InvalidInput(f"not an access slip: format {parts['format']!r}, this version reads {_SLIP!r}")
            access_id, salt = bytes.fromhex(parts["access"]), bytes.fromhex(parts["salt"])
            records = tuple(_ref(one) for one in parts["records"])
            reason = parts["reason"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidInput(f"not an access slip: {error}") from error
        if (len(access_id), len(salt)) != (16, SALT_BYTES) or not isinstance(reason, str | None):
            raise InvalidInput(f"not an access slip: access {access_id.hex()!r} with a salt of {len(salt)} bytes")
        return Slip(access_id, salt, records, reason)

    def check(self, line: LogLine) -> None:
        """Raises InvalidInput unless it opens what the line holds."""
        if scope_commit(self.salt, self.records) != line.scope_commit:
            raise InvalidInput(f"the slip of access {self.access_id.hex()} lists other records than were asked for")
        own = None if self.reason is None else commit(self.salt, "text/plain", self.reason.encode())
        if own != line.reason_commit:
            raise InvalidInput(f"the slip of access {self.access_id.hex()} gives another reason than the chain holds")


def _ref(text: str) -> RecordRef:
    batch, _, index = text.partition("/")
    found = bytes.fromhex(batch)
    if len(found) != 16 or not index.isdecimal():
        raise InvalidInput(f"not an access slip: {text!r} is not a record")
    return RecordRef(found, int(index))


@dataclass(frozen=True, slots=True)
class Openings:
    """What is at hand to open a log with."""

    names: Mapping[bytes, str] = field(default_factory=dict)
    """What handles of compartments and labels stand for."""
    records: Mapping[tuple[bytes, int], str] = field(default_factory=dict)
    """What single records are."""
    slips: Mapping[bytes, Slip] = field(default_factory=dict)
    """By access."""
    cards: Mapping[bytes, ConsentCard] = field(default_factory=dict)
    """By consent."""

    @staticmethod
    def of(
        cards: Iterable[ConsentCard] = (), manifests: Iterable[Manifest] = (), slips: Iterable[Slip] = ()
    ) -> "Openings":
        """All that these papers open."""
        names, records, by_consent = dict[bytes, str](), dict[tuple[bytes, int], str](), dict[bytes, ConsentCard]()
        for card in cards:
            by_consent[card.consent_id] = card
            if card.document is None:  # else the commitment is to the document, and the names are anybody's
                names.update((one.handle, one.name) for one in card.compartments if one.name is not None)
        for manifest in manifests:
            names.update((one.handle, one.name) for one in manifest.handles)
            for entry in manifest.entries:
                when = f" of {entry.clinical_date}" if entry.clinical_date else ""
                records[manifest.batch_id, entry.index] = f"{entry.resource_type}{when}"
        return Openings(names, records, {slip.access_id: slip for slip in slips}, by_consent)


@dataclass(frozen=True, slots=True)
class Named:
    """A line with everything about it that can be said."""

    line: LogLine
    recipient: str
    custodian: str
    custodian_id: bytes
    is_outside: bool
    """Whether the recipient is another organisation than the custodian: then it is a disclosure."""
    description: str
    """What was disclosed, as far as it could be opened."""
    records: tuple[str, ...]
    """The records of the list, where the slip opened it."""
    reason: str | None
    labels: tuple[str, ...]
    """Sensitive labels of what was asked for, as far as they are known."""
    consent_commit: bytes | None
    """Of the consent document on which it rests."""
    consent_copy: str | None
    """The document itself, where its card is at hand."""
    released: str
    """Whether validators report that the keys were released, in words."""
    release: Release | None
    """The same in numbers; None for a denial."""

    @property
    def is_allowed(self) -> bool:
        return self.line.decision == Code.OK

    @property
    def is_part2(self) -> bool:
        """Whether 42 CFR Part 2 holds for it: then consent copy and notice go along."""
        return not PART2_LABELS.isdisjoint(self.labels)

    @property
    def basis(self) -> str:
        """What it rests on, in words."""
        return words.basis(self.line.basis, self.line.consent_id)

    @property
    def consent_reference(self) -> str | None:
        """By which the consent copy is found and checked."""
        if self.line.consent_id is None:
            return None
        document = "" if self.consent_commit is None else f", document {self.consent_commit.hex()}"
        return f"consent {self.line.consent_id.hex()}{document}"

    @property
    def exemption(self) -> Exemption | None:
        """Why it need not be accounted for; None: it must be (F-14)."""
        if self.line.basis in ("owner", "proxy") or self.line.purpose in _INDIVIDUAL:
            return "individual"
        if not self.is_outside:
            return "use by the custodian itself"
        if self.line.purpose in _TPO:
            return "treatment, payment or operations"
        return "authorised" if self.line.basis == "consent" else None


def named(
    lines: Sequence[LogLine],
    organisations: Mapping[bytes, str],
    custodian: bytes,
    openings: Openings,
    consents: Sequence[Consent] = (),
    releases: Releases = NOTHING_RELEASED,
) -> list[Named]:
    """The lines with names, and with what is reported of their keys.

    Raises InvalidInput for a slip or a card that does not open what the chain holds.
    """
    terms = {found.terms.consent_id: found.terms for found in consents}
    for card in openings.cards.values():
        if card.consent_id not in terms:
            raise InvalidInput(f"the card names no consent of this patient: {card.consent_id.hex()}")
        if terms[card.consent_id].doc_commit != card.commitment:
            raise InvalidInput(f"the card is not the document of consent {card.consent_id.hex()} on the chain")
    home = organisations.get(custodian, custodian.hex())
    return [_named(line, organisations, (custodian, home), openings, terms, releases) for line in lines]


def _named(
    line: LogLine,
    organisations: Mapping[bytes, str],
    custodian: tuple[bytes, str],
    openings: Openings,
    terms: Mapping[bytes, Any],
    releases: Releases,
) -> Named:
    slip = openings.slips.get(line.access_id)
    if slip is not None:
        slip.check(line)
    records = () if slip is None else tuple(_record(ref, openings) for ref in slip.records)
    basis = None if line.consent_id is None else terms.get(line.consent_id)
    card = None if line.consent_id is None else openings.cards.get(line.consent_id)
    is_owner = line.basis == "owner"
    return Named(
        line=line,
        recipient="the patient" if is_owner else organisations.get(line.organisation, line.organisation.hex()),
        custodian=custodian[1],
        custodian_id=custodian[0],
        is_outside=not is_owner and line.organisation != custodian[0],
        description=_description(line, openings),
        records=records,
        reason=None if slip is None else slip.reason,
        labels=_labels(line, openings),
        consent_commit=None if basis is None else basis.doc_commit,
        consent_copy=None if card is None else card.document or card.dump(),
        released=releases.told(line),
        release=releases.of_line(line),
    )


def _record(ref: RecordRef, openings: Openings) -> str:
    known = openings.records.get((ref.batch_id, ref.index))
    return f"{known} ({ref})" if known else str(ref)


def _description(line: LogLine, openings: Openings) -> str:
    known = [openings.names[handle] for handle in line.compartments if handle in openings.names]
    unknown = len(line.compartments) - len(known)
    if unknown:
        known.append(f"{unknown} part{'s' if unknown > 1 else ''} of the chart that cannot be named here")
    return f"{line.n_records} record{'s' if line.n_records != 1 else ''}: {', '.join(known)}"


def _labels(line: LogLine, openings: Openings) -> tuple[str, ...]:
    found = {openings.names[handle] for handle in line.labels if handle in openings.names}
    for handle in line.compartments:
        _, _, labels = openings.names.get(handle, "").partition("/")
        found.update(label for label in labels.split("+") if label)
    return tuple(sorted(found - {"N"}))
