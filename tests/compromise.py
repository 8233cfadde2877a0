"""Every key of the system, alone in a thief's hands: what it can do and what it cannot, found out by trying (F-22).

Each kind of key meets each deed on a fresh chain with everybody on it. The thief has this one secret, may make any
number of keys of its own, and knows everything that is public. `docs/keys.md` is written from the outcomes by
`python -m tests.compromise`; a test compares.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from secrets import token_bytes

from msgspec.structs import replace

from p2pledger.chain import batch as batches
from p2pledger.client.records import Custodian, Patient, seal_record
from p2pledger.client.records import _open as open_sealed
from p2pledger.client.records import _record_context as record_context
from p2pledger.client.sealing import BoxKey
from p2pledger.consensus.certificates import check_certificate
from p2pledger.consensus.messages import Certificate, Vote, ballot_statement
from p2pledger.execution import keys as ledger_keys
from p2pledger.health import queries
from p2pledger.health.commitments import RecordRef
from p2pledger.health.deposit_operations import DepositKey
from p2pledger.health.events import AccessDecided, decode_event
from p2pledger.health.guardian_operations import (
    Freeze,
    GuardianSet,
    RecoveryFinalize,
    RecoveryStart,
    RecoveryVeto,
    approve,
    freeze_bytes,
    guardian_commit,
    sorted_commits,
    start_bytes,
)
from p2pledger.health.identity_operations import (
    IdentityRekey,
    KeyRevoke,
    OrganisationKeyRotate,
    OrganisationRekey,
    OrganisationResume,
    OrganisationSuspend,
)
from p2pledger.health.operations import (
    AccessRequest,
    ConsentRevoke,
    CredentialIssue,
    CredentialRevoke,
    IdentitySuspend,
    KeyRotate,
    OrganisationRegister,
)
from p2pledger.health.proxy_operations import DeceasedMark, ProxyGrant
from p2pledger.health.release import label_of
from p2pledger.health.vocabulary import IdentityKind
from p2pledger.primitives.codec import Record
from p2pledger.primitives.crypto import SigningKey, verify
from p2pledger.primitives.errors import Code, InvalidInput, Refused, Rejected
from p2pledger.primitives.ids import AccountKey, BlockHash, Bytes32, Epoch, Height, Millis, NodeId, ValidatorId, View
from p2pledger.threshold.group import as_scalar, scalar_from
from p2pledger.threshold.key_release import Access, TooFewShares
from p2pledger.threshold.one_time import OneTime, OneTimeHolder
from p2pledger.threshold.sealing import BoxSecret
from p2pledger.threshold.sharing import Polynomial, combine
from tests.unit.execution.ledger import hash32, id16, key
from tests.unit.health.world import (
    BERG,
    DAY_MS,
    DOCTOR,
    FOREVER_MS,
    PATIENT,
    PID,
    TAL,
    WALD,
    World,
    account,
    batch,
    opening,
    registration,
)

DOCUMENT = Path(__file__).parent.parent / "docs" / "keys.md"
DOCTOR_ID = id16("doctor")
_PATIENT_BOX, _CUSTODIAN_BOX, _JOINT = hash32("patient's box"), hash32("custodian's box"), hash32("joint secret")
_CONTENT_KEY, _DEPOSIT = hash32("a record's own key"), hash32("deposit key of one of four")
_REF = RecordRef(id16("batch"), 0)
_RECORD = b'{"resourceType":"AllergyIntolerance"}'
_SHARES = Polynomial.through(scalar_from(_JOINT * 2), 3, lambda n: blake2b(b"random", digest_size=n).digest())
_PEOPLE: Sequence[tuple[str, IdentityKind]] = (
    ("researcher", "researcher"),
    ("auditor", "auditor"),
    ("device", "device"),
    ("service", "service"),
)
_GUARDIANS = ("aunt", "brother", "cousin")


def town() -> World:
    """A doctor of Tal, a patient of Berg with guardians and a consent for the doctor, one for anybody of Tal."""
    world = World()
    for name, kind in _PEOPLE:
        world.register(name, kind, WALD, "Wald")
    for operation in (
        world.consent(),
        world.consent(consent_id=id16("for the house"), actor_commits=(_commit_to_the_house(),), purposes=("HPAYMT",)),
    ):
        assert world.submit(PATIENT, operation) == Code.OK
    assert world.submit(BERG, batch()) == Code.OK
    assert world.submit(PATIENT, _circle(_GUARDIANS)) == Code.OK
    return world


def _circle(names: Sequence[str], delay_ms: int = 3 * DAY_MS) -> GuardianSet:
    """Any two of these people."""
    commits = [guardian_commit(PID, hash32(f"salt of {name}"), account(name)) for name in names]
    return GuardianSet(PID, 2, sorted_commits(commits), delay_ms, None, 0)


def _commit_to_the_house() -> bytes:
    from p2pledger.health.operations import actor_commit

    return actor_commit(opening("organisation", id16("Tal")))


@dataclass(frozen=True)
class Kind:
    """A kind of key that somebody may steal."""

    name: str
    seed: bytes
    ends: str
    """Who ends the thief's use of it, and how."""


def _seed(name: str) -> bytes:
    return key(name).seed


KINDS = (
    Kind("patient: signing", _seed("patient"), "the patient: `wallet rotate`, before the thief does"),
    Kind("patient: box", _PATIENT_BOX, "nobody for what is sealed already; `wallet rotate` for what comes"),
    Kind("guardian: signing, with its card", _seed("aunt"), "the patient: `guardian set` without it"),
    Kind("practitioner: signing", _seed("doctor"), "the employer: `identity revoke-key`, then `identity rekey`"),
    Kind("practitioner: box", hash32("box of doctor"), "`wallet rotate`, or the employer"),
    Kind("researcher: signing", _seed("researcher"), "the employer, as for a practitioner"),
    Kind("auditor: signing", _seed("auditor"), "the employer, as for a practitioner"),
    Kind("device: signing", _seed("device"), "the employer, as for a practitioner"),
    Kind("service: signing", _seed("service"), "the employer, as for a practitioner"),
    Kind("custodian: account", _seed("Berg"), "the others: `member suspend`, `rekey`, `resume`"),
    Kind("reader's employer: account", _seed("Tal"), "the others: `member suspend`, `rekey`, `resume`"),
    Kind("uninvolved member: account", _seed("Wald"), "the others: `member suspend`, `rekey`, `resume`"),
    Kind("custodian: box", _CUSTODIAN_BOX, "nobody for what is sealed already; a new box key for what comes"),
    Kind("validator: consensus", _seed("validator of Berg"), "evidence on the chain names it; the members remove it"),
    Kind("node: transport", _seed("node of Berg"), "its member: a new node key in a new genesis; until then its peers"),
    Kind("reader: ephemeral", hash32("an ephemeral key"), "`not_after` of the one access that it was made for"),
    Kind("record: content key", _CONTENT_KEY, "nobody: it opens one record, for good"),
    Kind("holder: share of a joint key", _SHARES.at(1), "the next refresh of the shares"),
    Kind("holder: deposit key", _DEPOSIT, "nobody for what is sealed already; a new deposit key for what comes"),
    Kind("nobody: a key of one's own", _seed("stranger"), "there is nothing to end"),
)


class Thief:
    """One secret, tried as whatever it might be, and keys of one's own."""

    def __init__(self, kind: Kind, world: World) -> None:
        self.world = world
        self.seed = kind.seed
        self.signing = SigningKey(kind.seed)
        self.box = BoxKey(kind.seed)
        self.account = AccountKey(self.signing.public)

    def submit(self, operation: Record, *own: str) -> Code:
        """As sender with the stolen key; with keys of one's own as cosigners."""
        return self._code(self.signing, operation, [key(name) for name in own])

    def submit_as(self, own: str, operation: Record) -> Code:
        """As sender with a key of one's own, cosigned by the stolen one."""
        return self._code(key(own), operation, [self.signing])

    def _code(self, sender: SigningKey, operation: Record, cosigners: Sequence[SigningKey]) -> Code:
        return self.world.submit(sender, operation, cosigners=cosigners)

    def reads(self, reader: SigningKey, request: AccessRequest) -> Code:
        """The decision about a request, or why it was none."""
        effects = self.world.run(self.world.signed(reader, request))
        code = Code(effects.receipts[0].receipt.code)
        if code != Code.OK:
            return code
        decided = decode_event(effects.receipts[0].events[0])
        assert isinstance(decided, AccessDecided)
        return Code(decided.decision)

    def of_wanted(self, tries: Sequence[Callable[[], Code]]) -> Code:
        """OK if one of them is; else what the first met."""
        outcomes = [attempt() for attempt in tries]
        return Code.OK if Code.OK in outcomes else outcomes[0]


@dataclass(frozen=True)
class Deed:
    """Something that somebody might want to do."""

    name: str
    does: Callable[[Thief], Code]


def _grant(thief: Thief) -> Code:
    return thief.submit(thief.world.consent(consent_id=id16("forged")))


def _revoke_consent(thief: Thief) -> Code:
    return thief.submit(ConsentRevoke(id16("consent"), "withdrawn"))


def _name_a_proxy(thief: Thief) -> Code:
    did, evidence = DOCTOR_ID, hash32("evidence")
    powers = ("consent",)
    grants = [
        ProxyGrant(PID, did, kind, powers, Millis(0), Millis(FOREVER_MS), evidence)  # type: ignore[arg-type]
        for kind in ("attorney", "parent", "guardian")
    ]
    return thief.of_wanted([lambda grant=grant: thief.submit(grant) for grant in grants])  # type: ignore[misc]


def _start_a_recovery(thief: Thief) -> Code:
    """To a key of one's own, approved of by the stolen key and by one's own, with every salt that a card could say."""
    start = RecoveryStart(
        PID, id16("mine"), account("mine"), hash32("box"), Millis(FOREVER_MS), (), is_beyond_veto=False
    )
    return thief.of_wanted(
        [
            lambda signers=signers: thief.world.submit(key("mine"), _approved(start, signers, thief))  # type: ignore[misc]
            for signers in ([thief.signing], [thief.signing, thief.signing], [thief.signing, key("mine")])
        ]
    )


def _approved(operation: RecoveryStart, signers: Sequence[SigningKey], thief: Thief) -> RecoveryStart:
    data = start_bytes(operation, thief.world.chain)
    return replace(operation, approvals=tuple(approve(one, hash32("salt of aunt"), data) for one in signers))


def _finish_a_recovery_early(thief: Thief) -> Code:
    """One that two guardians have rightly started, a moment before its delay is over."""
    world = thief.world
    started = _rightly_started(world)
    world.now_ms += 3 * DAY_MS - 10_000
    return world.submit(thief.signing, RecoveryFinalize(PID, started))


def _veto_a_recovery(thief: Thief) -> Code:
    return thief.submit(RecoveryVeto(PID, _rightly_started(thief.world)))


def _rightly_started(world: World) -> bytes:
    start = RecoveryStart(PID, id16("new"), account("new"), hash32("box"), Millis(FOREVER_MS), (), is_beyond_veto=False)
    data = start_bytes(start, world.chain)
    given = tuple(approve(key(name), hash32(f"salt of {name}"), data) for name in ("brother", "cousin"))
    assert world.submit(key("new"), replace(start, approvals=given)) == Code.OK
    return start.recovery


def _freeze_the_patient(thief: Thief) -> Code:
    until_ms = thief.world.now_ms + DAY_MS
    data = freeze_bytes(thief.world.chain, PID, until_ms)
    given = approve(thief.signing, hash32("salt of aunt"), data)
    return thief.submit(Freeze(PID, Millis(until_ms), (given,)))


def _replace_the_guardians(thief: Thief) -> Code:
    """At once, that is: with friends of one's own, whose recovery is tried in the next block."""
    named = thief.submit(_circle(("mine", "friend")))
    start = RecoveryStart(PID, id16("x"), account("x"), hash32("box"), Millis(FOREVER_MS), (), is_beyond_veto=False)
    data = start_bytes(start, thief.world.chain)
    given = tuple(approve(key(name), hash32(f"salt of {name}"), data) for name in ("mine", "friend"))
    started = thief.world.submit(key("x"), replace(start, approvals=given))
    return started if named == Code.OK else named


def _mark_dead(thief: Thief) -> Code:
    return thief.submit(DeceasedMark(PID, True, hash32("evidence")))


def _read_by_consent(thief: Thief) -> Code:
    return thief.reads(thief.signing, thief.world.request(reader=thief.signing))


def _read_own(thief: Thief) -> Code:
    own = thief.world.request(reader=thief.signing, basis=None, actor_opening=None, purpose="PATRQT")
    return thief.reads(thief.signing, own)


def _read_without_consent(thief: Thief) -> Code:
    def asked(organisation: str, purpose: str) -> Code:
        request = thief.world.request(
            f"{organisation} {purpose}",
            thief.signing,
            organisation=id16(organisation),
            basis=None,
            actor_opening=None,
            purpose=purpose,
            compartments=(id16("psychiatry"),),
            reason_commit=hash32("reason"),
        )
        return thief.reads(thief.signing, request)

    return thief.of_wanted(
        [
            lambda house=house, purpose=purpose: asked(house, purpose)  # type: ignore[misc]
            for house in ("Tal", "Berg", "Wald")
            for purpose in ("TREAT", "BTG", "HOPERAT")
        ]
    )


def _sham(thief: Thief, house: str) -> Code:
    return thief.submit_as("sham", registration("sham", "practitioner", house))


def _register_a_sham(thief: Thief) -> Code:
    return thief.of_wanted([lambda house=house: _sham(thief, house) for house in ("Tal", "Berg", "Wald")])  # type: ignore[misc]


def _read_through_a_sham(thief: Thief, actor: Record, consent: str, purpose: str) -> Code:
    """Register somebody at Tal, say that it is a physician, and ask by what is opened to Tal."""
    registered = _sham(thief, "Tal")
    if registered != Code.OK:
        return registered
    said = thief.submit(CredentialIssue(id16("sham"), "physician", hash32("licence"), 0, FOREVER_MS))
    if said != Code.OK:
        return said
    request = thief.world.request("sham", key("sham"), basis=id16(consent), actor_opening=actor, purpose=purpose)
    return thief.reads(key("sham"), request)


def _sham_for_the_house(thief: Thief) -> Code:
    return _read_through_a_sham(thief, opening("organisation", id16("Tal")), "for the house", "HPAYMT")


def _sham_for_the_doctor(thief: Thief) -> Code:
    return _read_through_a_sham(thief, opening("person", DOCTOR_ID), "consent", "TREAT")


def _rotate(did: str) -> Callable[[Thief], Code]:
    return lambda thief: thief.submit(KeyRotate(id16(did), account("mine"), hash32("box")), "mine")


def _rotate_own(thief: Thief) -> Code:
    _, did = queries.identity_of(thief.account, thief.world.state)
    rotate = KeyRotate(PID if did is None else did, account("mine"), hash32("box"))
    return thief.submit(rotate, "mine")


def _take_over_the_doctor(thief: Thief) -> Code:
    revoked = thief.submit(KeyRevoke(DOCTOR_ID, AccountKey(DOCTOR.public)))
    taken = thief.submit_as("mine", IdentityRekey(DOCTOR_ID, account("mine"), hash32("box")))
    return taken if revoked == Code.OK else revoked


def _stop_the_doctor(thief: Thief) -> Code:
    return thief.of_wanted(
        [
            lambda: thief.submit(IdentitySuspend(DOCTOR_ID)),
            lambda: thief.submit(CredentialRevoke(DOCTOR_ID, "physician")),
        ]
    )


def _stop_the_patient(thief: Thief) -> Code:
    return thief.of_wanted(
        [
            lambda: thief.submit(IdentitySuspend(PID)),
            lambda: thief.submit(KeyRevoke(PID, AccountKey(PATIENT.public))),
        ]
    )


def _credential(thief: Thief) -> Code:
    return thief.submit(CredentialIssue(DOCTOR_ID, "nurse", hash32("licence"), 0, FOREVER_MS))


def _suspend_a_member(thief: Thief) -> Code:
    return thief.submit(OrganisationSuspend(id16("See")))


def _resume_or_rekey_a_member(thief: Thief) -> Code:
    pair = [name for name in (BERG, TAL, WALD) if name.public != thief.account]
    assert thief.world.submit(pair[0], OrganisationSuspend(id16("See")), cosigners=[pair[1]]) == Code.OK
    rekey = OrganisationRekey(id16("See"), account("mine"), hash32("box"))
    return thief.of_wanted([lambda: thief.submit(OrganisationResume(id16("See"))), lambda: thief.submit(rekey, "mine")])


def _rotate_a_member(thief: Thief) -> Code:
    return thief.submit(OrganisationKeyRotate(account("mine"), hash32("box")), "mine")


def _admit_a_member(thief: Thief) -> Code:
    admit = OrganisationRegister(id16("Meer"), "Meer", "hospital", account("Meer"), hash32("box"))
    return thief.submit(admit, "Meer")


def _commit_records(thief: Thief) -> Code:
    return thief.submit(replace(batch(), batch_id=id16("false records")))


def _see_the_log(thief: Thief) -> Code:
    return Code.OK if queries.may_see_patient(thief.account, PID, thief.world.state) else Code.E_ROLE


def _see_all_state(thief: Thief) -> Code:
    asked = b"\x50" + id16("another patient")
    return Code.OK if queries.may_read_state(thief.account, asked, thief.world.state) else Code.E_ROLE


def _open_a_record(thief: Thief) -> Code:
    """With the sealed bytes of the vault at hand, which is more than the chain gives anybody."""
    custodian = Custodian.of_box_seed(id16("Berg"), _CUSTODIAN_BOX)
    _, sealed = seal_record(_RECORD, _REF, custodian, Patient(PID, BoxKey(_PATIENT_BOX).public))
    try:
        opened = open_sealed(sealed, record_context(_REF, PID, id16("Berg")), thief.box, 4096)
    except InvalidInput:
        return Code.E_COMMIT_MISMATCH
    return Code.OK if opened == _RECORD else Code.E_COMMIT_MISMATCH


def _open_this_record(thief: Thief) -> Code:
    """A record whose content key is the stolen secret, if it is one."""
    from p2pledger.client.sealing import decrypt, encrypt

    nonce, ciphertext = encrypt(_CONTENT_KEY, _RECORD, b"context")
    try:
        return Code.OK if decrypt(thief.seed, nonce, ciphertext, b"context") == _RECORD else Code.E_COMMIT_MISMATCH
    except InvalidInput:
        return Code.E_COMMIT_MISMATCH


def _use_the_joint_key(thief: Thief) -> Code:
    """Of three shares that are needed, one."""
    try:
        share = as_scalar(thief.seed)
    except InvalidInput:
        share = scalar_from(thief.seed * 2)
    return Code.OK if combine({1: share}) == scalar_from(_JOINT * 2) else Code.E_COMMIT_MISMATCH


def _open_a_one_time_secret(thief: Thief) -> Code:
    """One of four boxes, at best, where three are needed."""
    others = [BoxSecret(hash32(f"deposit key {number}")).public for number in range(3)]
    among = OneTime([BoxSecret(_DEPOSIT).public, *others], 3, 4)
    label = label_of(_REF, PID, id16("Berg"), thief.world.chain, 0)
    capsule = among.wrap(_CONTENT_KEY, label, token_bytes)
    reader = BoxSecret(hash32("the thief's own"))
    access = Access(id16("none"), Bytes32(reader.public))
    try:
        share = OneTimeHolder(among, BoxSecret(thief.seed)).release(capsule, label, access, token_bytes)
        among.open(capsule, label, access, reader, {1: share})
    except (InvalidInput, TooFewShares):
        return Code.E_COMMIT_MISMATCH
    return Code.OK


def _announce_a_deposit_key(thief: Thief) -> Code:
    """The thief's own, in a validator's name: one box of each secret that is sealed from then on."""
    return thief.submit(DepositKey(Bytes32(BoxKey(hash32("the thief's own")).public)))


def _vote(thief: Thief) -> Code:
    """A COMMIT that counts as one of a quorum."""
    world, seat = thief.world, _seat(thief)
    empty = _certificate(())
    voter = ValidatorId(thief.signing.public)
    signature = thief.signing.sign(ballot_statement(world.chain, empty, voter))
    counts = seat is not None and verify(voter, ballot_statement(world.chain, empty, voter), signature)
    return Code.OK if counts else Code.E_SIG


def _finish_a_block(thief: Thief) -> Code:
    """A commit certificate out of votes of the stolen key alone, under every seat of a quorum."""
    world, validators = thief.world, thief.world.founding.validators
    empty = _certificate(())
    votes = []
    for seat in range(validators.q):
        author = validators.members[seat].id
        votes.append(Vote(seat, thief.signing.sign(ballot_statement(world.chain, empty, author))))
    try:
        check_certificate(_certificate(tuple(votes)), world.chain, validators)
    except InvalidInput:
        return Code.E_SIG
    return Code.OK


def _certificate(votes: tuple[Vote, ...]) -> Certificate:
    return Certificate("commit", Epoch(0), View(0), Height(9), BlockHash(hash32("a fork")), votes)


def _seat(thief: Thief) -> int | None:
    return thief.world.founding.validators.index(ValidatorId(thief.signing.public))


def _speak_as_a_node(thief: Thief) -> Code:
    """Seal a batch that peers file under a member, and carry links in its name."""
    world = thief.world
    sealed = batches.parse_batch(batches.seal(world.chain, thief.signing, 1, [world.signed(PATIENT, _harmless())]))
    batches.check_batch(world.chain, sealed)
    speaks = world.state.get(ledger_keys.speaker(NodeId(sealed.origin)))
    return Code.OK if speaks is not None else Code.E_UNKNOWN_SENDER


def _harmless() -> Record:
    return ConsentRevoke(id16("consent"), "withdrawn")


DEEDS = (
    Deed("grant a consent in the patient's name", _grant),
    Deed("take a consent back", _revoke_consent),
    Deed("name a proxy of the patient", _name_a_proxy),
    Deed("start a recovery of the patient", _start_a_recovery),
    Deed("finish a recovery before its delay is over", _finish_a_recovery_early),
    Deed("veto a recovery of the patient", _veto_a_recovery),
    Deed("freeze the patient", _freeze_the_patient),
    Deed("put guardians of its own in the others' place at once", _replace_the_guardians),
    Deed("declare the patient dead", _mark_dead),
    Deed("read what a consent opens to the doctor", _read_by_consent),
    Deed("read as the patient", _read_own),
    Deed("read what no consent opens", _read_without_consent),
    Deed("read, through a sham, what a consent opens to its organisation", _sham_for_the_house),
    Deed("read, through a sham, what a consent opens to the doctor", _sham_for_the_doctor),
    Deed("open a sealed record of the vault", _open_a_record),
    Deed("open the one record of this key", _open_this_record),
    Deed("open a capsule of the joint key", _use_the_joint_key),
    Deed("open a one-time secret", _open_a_one_time_secret),
    Deed("announce a deposit key as a validator", _announce_a_deposit_key),
    Deed("commit false records", _commit_records),
    Deed("see the patient's log", _see_the_log),
    Deed("see all state", _see_all_state),
    Deed("rotate the person's own key", _rotate_own),
    Deed("rotate the patient's key", _rotate("patient")),
    Deed("rotate the doctor's key", _rotate("doctor")),
    Deed("revoke and replace the doctor's key", _take_over_the_doctor),
    Deed("stop the doctor", _stop_the_doctor),
    Deed("stop the patient", _stop_the_patient),
    Deed("give the doctor another role", _credential),
    Deed("register a sham practitioner", _register_a_sham),
    Deed("rotate its organisation's key", _rotate_a_member),
    Deed("suspend a member", _suspend_a_member),
    Deed("resume or rekey a member", _resume_or_rekey_a_member),
    Deed("admit a member", _admit_a_member),
    Deed("cast a validator's vote", _vote),
    Deed("make a block final", _finish_a_block),
    Deed("speak as a member's node", _speak_as_a_node),
)


@cache
def outcomes() -> dict[str, dict[str, Code]]:
    """Kind of key -> deed -> what came of it, each tried on a chain of its own."""
    return {kind.name: {deed.name: _tried(kind, deed) for deed in DEEDS} for kind in KINDS}


def _tried(kind: Kind, deed: Deed) -> Code:
    try:
        return deed.does(Thief(kind, town()))
    except (Refused, Rejected) as refusal:
        return refusal.code


HEADING = """# Keys, and what a thief can do with one

Written by `python -m tests.compromise`, which tries it; a test compares (F-22). For each kind of key a thief has this
one secret, keys of its own, and everything that is public; each deed is tried on a fresh chain of four organisations,
where a patient of one has let a doctor of another read. What is not named under *can* was refused, with the code in
brackets. Box and content keys open what was sealed to them, for who also has the bytes of the vault.

No single key grants a consent but the patient's own, none reads what no consent opens, none becomes another person,
none makes a block final, and no member alone stops, admits or rekeys another. An organisation's account can register
people who do not exist: what a consent opens to the whole organisation, it opens to them. A consent that names a person
opens nothing to them. One guardian, with its card, does nothing; whoever has the patient's own key can veto a recovery,
which does not last ([guardians.md](guardians.md)), and name other guardians, whom those before outwait.
"""


def document() -> str:
    """docs/keys.md as it should be."""
    parts = [HEADING]
    for kind in KINDS:
        found = outcomes()[kind.name]
        can = [name for name, code in found.items() if code == Code.OK]
        cannot = [f"{name} ({code.name})" for name, code in found.items() if code != Code.OK]
        parts.append(f"\n## {kind.name[0].upper()}{kind.name[1:]}\n\n")
        parts.append(f"- **can** {'; '.join(can) or 'do nothing'}\n")
        parts.append(f"- **cannot** {'; '.join(cannot)}\n")
        parts.append(f"- **ended by** {kind.ends}\n")
    return "".join(parts)


if __name__ == "__main__":
    DOCUMENT.write_text(document())
