"""When a validator releases a share, and what it reports, against a model of health rule 3.5 (I-1, I-2, I-4, I-5, I-9).

A seed draws a consent, an access, what happens after it, and a question that may have been tampered with. The model
knows what was drawn, and says from the text of the rule whether shares may leave.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from msgspec.structs import replace

from p2pledger.health import release, release_receipts
from p2pledger.health.commitments import check_record
from p2pledger.health.operations import ConsentRevoke, CredentialRevoke, IdentityResume, IdentitySuspend
from p2pledger.health.records import batch_of
from p2pledger.health.release import ReleaseEntry, ReleaseRequest
from p2pledger.health.release_operations import Released, ReleaseReceipt
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, Refused
from p2pledger.threshold.key_release import Access
from tests.seeded.voices import require
from tests.unit.execution.ledger import HOUR_MS, hash32, id16
from tests.unit.health.charts import READER, Chart
from tests.unit.health.world import ALLERGY, DAY_MS, PATIENT, PID, TAL

NOTE = 7
"""The only record of the chart that is no allergy."""
EARLY = (202001, 202112)
"""The months of records 0 to 5."""


def run_seed(seed: int, n: int) -> Counter[str]:
    """Some questions about one access, and a year of reports; raises InvariantBroken."""
    random = Random(f"releases {seed} {n}")
    shown: Counter[str] = Counter()
    chart = Chart(random_name=f"releases {seed}")
    case = _drawn(random, chart)
    for _ in range(6):
        _ask(random, chart, case, shown)
        _happens(random, chart, case)
    _ask(random, chart, case, shown)
    _reports(random, chart, case, shown)
    return shown


@dataclass
class _Case:
    """What is true of the access, as the model keeps it."""

    indices: list[int]
    until_ms: int
    """The first instant at which nothing permits it any more: consent or request, whichever ends first."""
    months: tuple[int, int] | None
    is_allowed: bool
    request: ReleaseRequest
    is_revoked: bool = False
    is_suspended: bool = False
    is_without_role: bool = False
    written: dict[bytes, int] = field(default_factory=dict)

    def in_scope(self, index: int) -> bool:
        is_month = self.months is None or index <= 5
        return index in self.indices and index != NOTE and is_month


def _drawn(random: Random, chart: Chart) -> _Case:
    world = chart.world
    valid_ms = random.choice([HOUR_MS, DAY_MS])
    begins = world.now_ms
    assert world.grant(valid_to_ms=begins + valid_ms, max_uses=random.choice([0, 1])) == Code.OK
    indices = sorted(random.sample(range(8), random.randint(1, 3)))
    months = random.choice([None, None, EARLY])
    ends = begins + random.choice([HOUR_MS // 2, 2 * HOUR_MS, 2 * DAY_MS])
    purpose = random.choice(["TREAT", "TREAT", "TREAT", "CLINTRCH"])
    asked = chart.asked(*indices, not_after_ms=ends, months=months, purpose=purpose)
    decided = world.decided(asked)
    assert decided.is_allowed == (purpose == "TREAT")
    return _Case(indices, min(begins + valid_ms, ends), months, decided.is_allowed, chart.request(*indices))


def _happens(random: Random, chart: Chart, case: _Case) -> None:
    world = chart.world
    deed = random.choice(["revoke", "suspend", "resume", "dismiss", "time", *["nothing"] * 10])
    if deed == "revoke" and not case.is_revoked:
        assert world.submit(PATIENT, ConsentRevoke(id16("consent"), "withdrawn")) == Code.OK
        case.is_revoked = True
    elif deed == "suspend" and not case.is_suspended:
        assert world.submit(TAL, IdentitySuspend(id16("doctor"))) == Code.OK
        case.is_suspended = True
    elif deed == "resume" and case.is_suspended:
        assert world.submit(TAL, IdentityResume(id16("doctor"))) == Code.OK
        case.is_suspended = False
    elif deed == "dismiss" and not case.is_without_role:
        assert world.submit(TAL, CredentialRevoke(id16("doctor"), "physician")) == Code.OK
        case.is_without_role = True
    elif deed == "time":
        world.now_ms += random.choice([HOUR_MS // 2, HOUR_MS, 5 * HOUR_MS])


@dataclass(frozen=True)
class _Question:
    """What is asked, and whether its parts are what the access was decided about."""

    request: ReleaseRequest
    indices: list[int]
    is_genuine: bool
    rule: str = "I-1"


def _ask(random: Random, chart: Chart, case: _Case, shown: Counter[str]) -> None:
    question = _question(random, chart, case)
    moment = chart.moment()
    changes: dict[str, Any] = {}
    clock = random.choice([*["right"] * 5, "late", "cut off"])
    now = moment.block_ms
    if clock == "late":  # the chain stands still and has no heartbeat
        ahead = random.choice([HOUR_MS // 2, 3 * HOUR_MS])
        changes = {"wall_ms": now + moment.drift_ms + ahead, "heartbeat_ms": 0}
        now += ahead
    elif clock == "cut off":
        changes = {"wall_ms": now + moment.drift_ms + 2 * moment.heartbeat_ms + 1}
    answer = chart.may_release(question.request, **changes)
    allowed = not isinstance(answer, Code)
    ended = case.is_revoked or case.is_suspended or case.is_without_role or now >= case.until_ms or clock == "cut off"
    scope = all(case.in_scope(index) for index in question.indices)
    due = case.is_allowed and not ended and question.is_genuine and scope
    rule = "I-1" if not case.is_allowed or not scope else "I-2" if ended else question.rule
    require(allowed == due, rule, f"a share of {question.indices} may leave: {allowed}, it should be {due}")
    shown["released" if allowed else "refused"] += 1
    shown[f"{'OK' if allowed else answer.name}"] += 1  # type: ignore[union-attr]
    if not isinstance(answer, Code):
        _check_entries(chart, question, answer)
        case.written[id16("access")] = max(len(answer), case.written.get(id16("access"), 0))
        _check_shares(random, chart, question, answer, shown)


def _question(random: Random, chart: Chart, case: _Case) -> _Question:
    genuine = case.request
    tampering: list[Callable[[], _Question]] = [
        *[lambda: _Question(genuine, case.indices, True)] * 4,
        lambda: _part(random, case),
        lambda: _Question(replace(genuine, salt=hash32("another salt")), case.indices, False),
        lambda: _Question(replace(genuine, scope=(*genuine.scope, genuine.scope[0])), case.indices, False),
        lambda: _Question(replace(genuine, openings=genuine.openings * 2), case.indices, False),
        lambda: _elsewhere(random, chart, case),
        lambda: _with(genuine, case, capsule=chart.capsules[(case.indices[0] + 1) % 8]),
        lambda: _with(genuine, case, key_epoch=2),
        lambda: _forged(chart, case),
        lambda: _Question(replace(genuine, access_id=id16("nobody's")), case.indices, False),
    ]
    return random.choice(tampering)()


def _part(random: Random, case: _Case) -> _Question:
    at = random.randrange(len(case.indices))
    return _Question(replace(case.request, openings=case.request.openings[at : at + 1]), [case.indices[at]], True)


def _elsewhere(random: Random, chart: Chart, case: _Case) -> _Question:
    """A record that was not asked for."""
    other = random.choice([index for index in range(8) if index not in case.indices])
    return _Question(replace(case.request, openings=(chart.opening(other),)), [other], False)


def _with(genuine: ReleaseRequest, case: _Case, **changes: Any) -> _Question:
    first, *rest = genuine.openings
    return _Question(replace(genuine, openings=(replace(first, **changes), *rest)), case.indices, False, "I-4")


def _forged(chart: Chart, case: _Case) -> _Question:
    """A leaf that says what it likes, with the path of the true one."""
    proof = case.request.openings[0].proof
    leaf = replace(proof.leaf, compartments=(ALLERGY,), month=202003, author_org=bytes(16))
    return _with(case.request, case, proof=replace(proof, leaf=leaf))


def _check_entries(chart: Chart, question: _Question, entries: tuple[ReleaseEntry, ...]) -> None:
    require(len(entries) == len(question.indices), "I-9", f"{len(entries)} entries for {len(question.indices)} shares")
    for index, entry, opening in zip(question.indices, entries, question.request.openings, strict=True):
        require(entry.access == Access(id16("access"), READER.public), "I-5", "an entry names another access or reader")
        require(entry.label == chart.label(index), "I-4", f"an entry of record {index} has label {entry.label}")
        require(entry.label.pid == PID, "I-4", "a label of another patient")
        require(entry.capsule == sha256(chart.capsules[index]), "I-4", "an entry names another capsule")
        batch = batch_of(opening.batch_id, chart.world.state)
        require(batch is not None and check_record(opening.proof, batch.terms.root).index == index, "I-4", "no record")


def _check_shares(
    random: Random, chart: Chart, question: _Question, entries: tuple[ReleaseEntry, ...], shown: Counter[str]
) -> None:
    """t shares open the record, one fewer does not, and the capsule of another record gives none."""
    entry, opening = entries[0], question.request.openings[0]
    shares = chart.shares(entry, opening.capsule)
    t = chart.active.key.threshold
    require(t == 3, "I-3", f"{t} of 4 shares open")
    opened = chart.release.open(opening.capsule, entry.label, entry.access, READER, shares)
    require(opened.content_key == chart.content_keys[question.indices[0]], "I-4", "another key was opened")
    moved = replace(entry, label=replace(entry.label, index=entry.label.index + 1))
    try:
        release.share_of(moved, opening.capsule, chart.keepers[0].holder(), chart.random)
    except Refused:
        shown["moved capsule refused"] += 1
        return
    require(False, "I-4", "a share for a capsule under another record's label")


def _reports(random: Random, chart: Chart, case: _Case, shown: Counter[str]) -> None:
    """Reports of validators grow up to what was asked for; what is owed is what was written and not reported."""
    access_id, told = id16("access"), [0, 0, 0, 0]
    for _ in range(8):
        at, records = random.randrange(4), random.randint(1, len(case.indices) + 1)
        keeper = chart.keepers[at]
        code = chart.world.submit(keeper.node, ReleaseReceipt((Released(access_id, records),)))
        due = case.is_allowed and told[at] < records <= len(case.indices)
        require((code == Code.OK) == due, "I-9", f"a report of {records} after {told[at]}: {code.name}")
        told[at] = records if due else told[at]
        written = {access_id: random.randint(1, len(case.indices))}
        owed = release_receipts.unreported(written, keeper.validator, chart.world.state)
        expected = (Released(access_id, written[access_id]),) if written[access_id] > told[at] else ()
        require(owed == expected, "I-9", f"{owed} is owed, it should be {expected}")
        shown["report" if due else "report refused"] += 1
