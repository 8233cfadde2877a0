"""A chart whose keys are in capsules, on a chain with a joint key: what release is tested with."""

from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from p2pledger.health import release
from p2pledger.health.commitments import RecordLeaf, RecordRef, prove_record, record_root, scope_commit
from p2pledger.health.joint_key import ActiveKey
from p2pledger.health.operations import AccessRequest, CompartmentCount, RecordBatch
from p2pledger.health.release import Moment, RecordOpening, ReleaseEntry, ReleaseRequest
from p2pledger.primitives.crypto import SigningKey, sha256
from p2pledger.primitives.errors import Code
from p2pledger.threshold.capsule import Label
from p2pledger.threshold.dkg import CeremonyId
from p2pledger.threshold.long_term import LongTerm
from p2pledger.threshold.participant import seeded
from p2pledger.threshold.sealing import BoxSecret
from tests.unit.execution.ledger import hash32, id16
from tests.unit.health.ceremonies import Keeper, hold, keepers_of
from tests.unit.health.world import ALLERGY, BERG, DOCTOR, NOTES, PID, World, batch

SALT = hash32("scope salt")
READER = BoxSecret(hash32("ephemeral secret"))


@dataclass
class Chart:
    """Berg's seven allergies and one note of the patient, each with a capsule; the doctor's requests about them."""

    world: World = field(default_factory=World)
    batch_id: bytes = id16("batch")
    n: int = 8
    random_name: str = "chart"

    def __post_init__(self) -> None:
        self.random = seeded(sha256(self.random_name.encode()))
        self.keepers: list[Keeper] = keepers_of(self.world)
        self.active: ActiveKey = hold(self.world, CeremonyId(1, 0, 0), self.keepers)
        self.release = LongTerm(self.active.key)
        self.content_keys = [self.random(32) for _ in range(self.n)]
        self.capsules = [
            self.release.wrap(content, self.label(index), self.random)
            for index, content in enumerate(self.content_keys)
        ]
        self.commit()

    def label(self, index: int) -> Label:
        return release.label_of(RecordRef(self.batch_id, index), PID, id16("Berg"), self.world.chain, 1)

    def leaves(self) -> list[RecordLeaf]:
        return [
            RecordLeaf(
                index,
                hash32(f"commitment {index}"),
                sha256(capsule),
                hash32(f"object {index}"),
                id16("Tal"),
                202011 if index < 6 else 202211,
                (NOTES,) if index == self.n - 1 else (ALLERGY,),
            )
            for index, capsule in enumerate(self.capsules)
        ]

    def commit(self) -> None:
        compartments = (CompartmentCount(ALLERGY, self.n - 1), CompartmentCount(NOTES, 1))
        made: RecordBatch = batch(
            batch_id=self.batch_id, n=self.n, root=record_root(self.leaves()), compartments=compartments
        )
        assert self.world.submit(BERG, made) == Code.OK

    def asked(self, *indices: int, name: str = "access", **changes: Any) -> AccessRequest:
        """The doctor's request about these records, bound to the reader's key."""
        scope = [RecordRef(self.batch_id, index) for index in indices]
        settings: dict[str, Any] = {
            "scope_commit": scope_commit(SALT, scope),
            "n_records": len(scope),
            "reader_eph_x25519": READER.public,
        }
        return self.world.request(name, **(settings | changes))

    def allow(self, *indices: int, name: str = "access", reader: SigningKey = DOCTOR, **changes: Any) -> ReleaseRequest:
        """An access that the chain allowed, and what the reader then sends to the validators."""
        decided = self.world.decided(self.asked(*indices, name=name, **changes), reader)
        assert decided.is_allowed, Code(decided.decision)
        return self.request(*indices, name=name)

    def request(self, *indices: int, name: str = "access") -> ReleaseRequest:
        scope = tuple(RecordRef(self.batch_id, index) for index in indices)
        return ReleaseRequest(id16(name), SALT, scope, tuple(self.opening(index) for index in indices))

    def opening(self, index: int) -> RecordOpening:
        return RecordOpening(self.batch_id, prove_record(self.leaves(), index), 1, self.capsules[index])

    def moment(self, **changes: Any) -> Moment:
        now = self.world.now_ms - 1_000  # the last block's time
        parameters = self.world.founding.parameters
        fields = {"block_ms": now, "wall_ms": now, "drift_ms": parameters.drift_ms}
        return Moment(**({**fields, "heartbeat_ms": parameters.heartbeat_ms} | changes))

    def may_release(self, request: ReleaseRequest, **moment: Any) -> Code | tuple[ReleaseEntry, ...]:
        return release.may_release(self.world.state, self.world.chain, request, self.moment(**moment))

    def code(self, request: ReleaseRequest, **moment: Any) -> Code:
        """OK where shares may leave."""
        answer = self.may_release(request, **moment)
        return answer if isinstance(answer, Code) else Code.OK

    def shares(self, entry: ReleaseEntry, capsule: bytes) -> dict[int, bytes]:
        """What the validators that confirmed release for an entry."""
        holders = [keeper.holder() for keeper in self.keepers if keeper.shares]
        return {holder.index: release.share_of(entry, capsule, holder, self.random) for holder in holders}


def changed(request: ReleaseRequest, **changes: Any) -> ReleaseRequest:
    """The request with its only opening changed."""
    (opening,) = request.openings
    return replace(request, openings=(replace(opening, **changes),))
