"""F-23, F-24: old box keys open for a recovered patient, and for nobody else; each rule by itself."""

from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from p2pledger.chain.genesis import Parameters
from p2pledger.health import recovery_release, release, release_receipts
from p2pledger.health.events import SharesReleased
from p2pledger.health.proxy_operations import DeceasedMark
from p2pledger.health.recovery_release import RecoverRequest, RecoveryOpening, recovery_label
from p2pledger.health.release import Moment, ReleaseEntry
from p2pledger.health.release_operations import Released, ReleaseReceipt
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, Refused
from p2pledger.primitives.ids import Bytes16
from p2pledger.threshold.dkg import CeremonyId
from p2pledger.threshold.key_release import Access
from p2pledger.threshold.long_term import LongTerm
from p2pledger.threshold.participant import seeded
from p2pledger.threshold.sealing import BoxSecret
from tests.unit.execution.ledger import HOUR_MS, hash32, id16, key
from tests.unit.health.ceremonies import Keeper, hold, keepers_of
from tests.unit.health.guarded import AUNT, BROTHER, COUSIN, DELAY_MS, Guarded
from tests.unit.health.world import BERG, DAY_MS, PATIENT, PID, TAL, World

SECRET = hash32("what opens the old box keys")
NEW = BoxSecret(hash32("secret of the new box"))
RECOVERY = id16("recovery to new")


@dataclass
class Kept:
    """A guarded patient whose old box keys wait in a capsule of the validators' joint key."""

    guarded: Guarded = field(default_factory=lambda: Guarded(World(Parameters(recovery_delay_min_ms=HOUR_MS))))

    def __post_init__(self) -> None:
        self.random = seeded(sha256(b"kept"))
        self.keepers: list[Keeper] = keepers_of(self.world)
        self.active = hold(self.world, CeremonyId(1, 0, 0), self.keepers)
        self.label = recovery_label(PID, id16("Berg"), self.world.chain, 1)
        self.capsule = LongTerm(self.active.key).wrap(SECRET, self.label, self.random)
        assert self.guarded.set(AUNT, BROTHER, COUSIN, capsule=sha256(self.capsule), key_epoch=1) == Code.OK
        self.guarded.pass_time(DELAY_MS)

    @property
    def world(self) -> World:
        return self.guarded.world

    def start(self, new: str = "new") -> None:
        assert self.guarded.start(new, AUNT, BROTHER, box=NEW.public) == Code.OK

    def recover(self, new: str = "new") -> None:
        self.start(new)
        self.guarded.pass_time(DELAY_MS)
        assert self.guarded.finalize(new) == Code.OK

    def asked(self) -> RecoverRequest:
        return RecoverRequest(RECOVERY, (RecoveryOpening(self.capsule, 1),))

    def moment(self, wall_ms: int | None = None) -> Moment:
        now, parameters = self.world.now_ms - 1_000, self.world.founding.parameters
        return Moment(now, now if wall_ms is None else wall_ms, parameters.drift_ms, parameters.heartbeat_ms)

    def judged(self, request: RecoverRequest | None = None, moment: Moment | None = None) -> object:
        asked = request or self.asked()
        return recovery_release.may_share(self.world.state, self.world.chain, asked, moment or self.moment())

    def entry(self) -> ReleaseEntry:
        judged = self.judged()
        assert isinstance(judged, tuple), judged
        (entry,) = judged
        return entry


@pytest.fixture
def kept() -> Kept:
    return Kept()


def test_a_recovered_patient_opens_what_waits(kept: Kept) -> None:
    """With the shares of t validators, sealed to the new box key; nobody else's key opens them."""
    kept.recover()
    entry = kept.entry()
    assert entry == ReleaseEntry(Access(RECOVERY, NEW.public), kept.label, sha256(kept.capsule))
    holders = [keeper.holder() for keeper in kept.keepers if keeper.shares]
    shares = {one.index: release.share_of(entry, kept.capsule, one, kept.random) for one in holders}
    public = LongTerm(kept.active.key)
    assert public.open(kept.capsule, kept.label, entry.access, NEW, shares).content_key == SECRET
    thief = BoxSecret(hash32("another box"))
    with pytest.raises(Exception, match="good shares"):
        public.open(kept.capsule, kept.label, entry.access, thief, shares)


def test_nothing_is_released_before_the_recovery_is_final(kept: Kept) -> None:
    """F-24: guardians, however many, get nothing while the delay runs, nor after a veto."""
    assert kept.judged() == Code.E_NOT_FOUND
    kept.start()
    assert kept.judged() == Code.E_STATE
    kept.guarded.pass_time(DELAY_MS)
    assert kept.judged() == Code.E_STATE, "due, but nobody has made it final"
    assert kept.guarded.veto("new") == Code.OK
    assert kept.judged() == Code.E_STATE


def test_a_recovery_that_was_overtaken_opens_nothing(kept: Kept) -> None:
    kept.recover()
    assert isinstance(kept.judged(), tuple)
    assert kept.guarded.start("newer", AUNT, COUSIN) == Code.OK
    kept.guarded.pass_time(DELAY_MS)
    assert kept.guarded.finalize("newer") == Code.OK
    assert kept.judged() == Code.E_STATE


def test_only_the_capsule_of_the_guardians_is_opened(kept: Kept) -> None:
    """I-4: neither another patient's, nor a record's, nor one of another key epoch."""
    kept.recover()
    other = LongTerm(kept.active.key).wrap(SECRET, replace(kept.label, pid=id16("another")), kept.random)
    assert kept.judged(RecoverRequest(RECOVERY, (RecoveryOpening(other, 1),))) == Code.E_CAPSULE
    assert kept.judged(RecoverRequest(RECOVERY, (RecoveryOpening(kept.capsule, 2),))) == Code.E_CAPSULE


def test_a_capsule_that_the_patient_took_from_elsewhere_does_not_open() -> None:
    """Its hash is on the chain, its label is not that of this patient: the holder's check refuses it (I-4)."""
    kept = Kept()
    foreign = replace(kept.label, pid=id16("another patient"))
    kept.capsule = LongTerm(kept.active.key).wrap(SECRET, foreign, kept.random)
    assert kept.guarded.set(AUNT, BROTHER, capsule=sha256(kept.capsule), key_epoch=1) == Code.OK
    kept.guarded.pass_time(DELAY_MS)
    kept.recover()
    entry, holder = kept.entry(), next(one for one in kept.keepers if one.shares).holder()
    with pytest.raises(Refused) as refused:
        release.share_of(entry, kept.capsule, holder, kept.random)
    assert refused.value.code == Code.E_CAPSULE


def test_without_a_capsule_there_is_nothing_to_open() -> None:
    kept = Kept()
    assert kept.guarded.set(AUNT, BROTHER) == Code.OK
    kept.guarded.pass_time(DELAY_MS)
    kept.recover()
    assert kept.judged() == Code.E_CAPSULE


def test_a_validator_that_is_behind_says_nothing(kept: Kept) -> None:
    kept.recover()
    now = kept.moment()
    oldest = now.block_ms + 2 * now.heartbeat_ms + now.drift_ms
    assert isinstance(kept.judged(moment=kept.moment(oldest)), tuple)
    assert kept.judged(moment=kept.moment(oldest + 1)) == Code.E_STALE


def test_a_stolen_new_key_is_frozen_too(kept: Kept) -> None:
    """F-25: guardians who hear that it was a thief who asked them stop what they have begun."""
    kept.recover()
    assert kept.guarded.freeze(AUNT, COUSIN, until_ms=kept.world.now_ms + DAY_MS) == Code.OK
    assert kept.judged() == Code.E_FROZEN


def test_the_dead_get_nothing(kept: Kept) -> None:
    kept.recover()
    mark = DeceasedMark(PID, True, hash32("evidence"))
    assert kept.world.submit(BERG, mark, cosigners=[TAL]) == Code.OK
    assert kept.judged() == Code.E_DECEASED


def test_only_the_new_key_may_ask(kept: Kept) -> None:
    assert recovery_release.asker_of(kept.asked(), kept.world.state) is None
    kept.recover()
    assert recovery_release.asker_of(kept.asked(), kept.world.state) == key("new").public


def test_validators_report_what_they_released(kept: Kept) -> None:
    """I-9 for recoveries: the patient's feed tells who released; more than one capsule there is not."""
    node = key("node of Berg")
    early = ReleaseReceipt((Released(Bytes16(RECOVERY), 1),))
    kept.start()
    assert kept.world.submit(node, early) == Code.E_NOT_FOUND
    kept.guarded.pass_time(DELAY_MS)
    assert kept.guarded.finalize("new") == Code.OK
    assert kept.world.submit(node, ReleaseReceipt((Released(Bytes16(RECOVERY), 2),))) == Code.E_FORMAT
    (event,) = kept.world.events(node, early)
    assert isinstance(event, SharesReleased)
    assert (event.access_id, event.pid, event.records) == (RECOVERY, PID, 1)
    assert list(release_receipts.reports_of(RECOVERY, kept.world.state)) == [event.validator]


def test_the_old_key_reads_nothing_any_more(kept: Kept) -> None:
    """Whoever has the lost wallet is nobody from that block on."""
    kept.recover()
    assert kept.world.ask("own", PATIENT, basis=None, actor_opening=None, purpose="PATRQT") == Code.E_UNKNOWN_ACTOR
