"""Validators that lie with their keys, by name. In the agreement they are honest: nothing else is about them."""

from collections.abc import Sequence

from msgspec.structs import replace

from p2pledger.execution.contract import Duty
from p2pledger.health import access, guardian_state, joint_key, records, recovery_release, release
from p2pledger.health.commitments import RecordRef
from p2pledger.health.deposit_check import ToCheck
from p2pledger.health.joint_key_operations import LtsComplaint, LtsDeal, LtsInit, LtsJustify
from p2pledger.health.recovery_release import RecoverRequest, ShareRequest
from p2pledger.health.release import ReleaseEntry
from p2pledger.primitives.codec import encode
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import Code, InvalidInput, ProofError
from p2pledger.sim.clinic import hospital_of
from p2pledger.sim.keys.holder import Answer, KeyHolder, sharing_of
from p2pledger.state.view import StateView
from p2pledger.threshold import key_release
from p2pledger.threshold.capsule import check_capsule
from p2pledger.threshold.dkg import Deal
from p2pledger.threshold.group import base_times, random_scalar, times
from p2pledger.threshold.key_release import ShareHolder, share_context
from p2pledger.threshold.long_term import LongTermHolder, ReleasedShare
from p2pledger.threshold.one_time import OneTimeHolder
from p2pledger.threshold.participant import seeded
from p2pledger.threshold.proofs import prove_equal_logs
from p2pledger.threshold.sealing import BoxSecret, seal


class LyingHolder(KeyHolder):
    """Sends wrong shares, shares to a key of its own, and good ones to whoever asks, of which it says nothing."""

    def answer(self, request: ShareRequest, asker: bytes) -> Answer | Code:
        engine = self.node.engine
        assert engine is not None
        state = engine.executor.state
        entries = self._asked_for(request, state)
        holder = self.held(request)
        if holder is None or not entries:
            return Code.E_NOT_FOUND
        deed = self.chance.choice([self._wrong, self._diverted, self._secret])
        capsules = recovery_release.capsules_of(request)
        try:
            sealed = tuple(deed(holder, entry, capsule) for entry, capsule in zip(entries, capsules, strict=True))
        except (InvalidInput, ProofError):
            return Code.E_CAPSULE
        self._reached(f"lie of {type(self).__name__}: {deed.__name__.strip('_')}")
        sharing = sharing_of(holder)
        for entry, capsule, share in zip(entries, capsules, sealed, strict=True):
            self.let_go(int(engine.executor.last.height), 0, entry, capsule, sharing, share)
        return Answer(holder.index, sharing, sealed)

    def _asked_for(self, request: ShareRequest, state: StateView) -> list[ReleaseEntry]:
        """Of whatever is asked for, with or without a right."""
        if isinstance(request, RecoverRequest):
            return self._recovered(request, state)
        decided = access.access_of(request.access_id, state)
        if decided is None:
            return []
        found = []
        for opening in request.openings:
            batch = records.batch_of(opening.batch_id, state)
            if batch is None:
                return []
            ref = RecordRef(opening.batch_id, opening.proof.leaf.index)
            chain = self.world.consortium.founding.chain
            label = release.label_of(ref, batch.terms.pid, batch.terms.custodian, chain, opening.key_epoch)
            reader = key_release.Access(request.access_id, decided.request.reader_eph_x25519)
            found.append(ReleaseEntry(reader, label, opening.proof.leaf.capsule or bytes(32)))
        return found

    def _recovered(self, request: RecoverRequest, state: StateView) -> list[ReleaseEntry]:
        """Of a recovery that guardians have only begun, too."""
        recovery = guardian_state.recovery_of(request.access_id, state)
        if recovery is None:
            return []
        (opening,) = request.openings
        custodian, chain = hospital_of(self.world), self.world.consortium.founding.chain
        label = recovery_release.recovery_label(recovery.pid, custodian, chain, opening.key_epoch)
        reader = key_release.Access(request.access_id, recovery.box)
        return [ReleaseEntry(reader, label, sha256(opening.capsule))]

    def _wrong(self, holder: LongTermHolder | OneTimeHolder, entry: ReleaseEntry, capsule: bytes) -> bytes:
        """A share of something else, with a proof of something else."""
        random = seeded(self.chance.randbytes(32))
        if isinstance(holder, OneTimeHolder):
            context = share_context(capsule, entry.label, entry.access, holder.index, holder.table)
            return seal(entry.access.reader, random_scalar(random), context, random)
        secret, u = random_scalar(random), check_capsule(capsule, entry.label)
        context = share_context(capsule, entry.label, entry.access, holder.index, holder.key.share_epoch)
        image = times(secret, u)
        proof = prove_equal_logs(secret, base_times(secret), u, image, context, random)
        return seal(entry.access.reader, encode(ReleasedShare(image, proof)), context, random)

    def _diverted(self, holder: ShareHolder, entry: ReleaseEntry, capsule: bytes) -> bytes:
        """Its true share, sealed to a key of its own."""
        random = seeded(self.chance.randbytes(32))
        mine = key_release.Access(entry.access.access_id, BoxSecret(random(32)).public)
        return holder.release(capsule, entry.label, mine, random)

    def _secret(self, holder: ShareHolder, entry: ReleaseEntry, capsule: bytes) -> bytes:
        """Its true share for the reader: no entry, no report, and perhaps no right."""
        return holder.release(capsule, entry.label, entry.access, seeded(self.chance.randbytes(32)))


class FalseWitness(KeyHolder):
    """Says of every one-time share that it is good, whether it opens or not."""

    def good_of(self, work: ToCheck, holder: OneTimeHolder) -> tuple[int, ...]:
        good = super().good_of(work, holder)
        if len(good) < len(work.shown):
            self._reached("lie of FalseWitness")
        return tuple(one.label.index for one in work.shown)


class CheatingDealer(KeyHolder):
    """Deals one receiver what does not open; when accused it answers, answers falsely, or says nothing."""

    def spoken(self, operations: Sequence[Duty]) -> Sequence[Duty]:
        return [changed for word in operations for changed in self._changed(word)]

    def _changed(self, word: Duty) -> Sequence[Duty]:
        if isinstance(word, LtsDeal):
            self._reached("lie of CheatingDealer: deals badly")
            return [replace(word, deal=self._spoiled(word.deal))]
        if isinstance(word, LtsJustify):
            answer = self.chance.choice(["says nothing", "answers falsely", "answers"])
            self._reached(f"lie of CheatingDealer: {answer}")
            if answer == "answers falsely":
                return [replace(word, share=random_scalar(seeded(self.chance.randbytes(32))))]
            return [word] if answer == "answers" else []
        return [word]

    def _spoiled(self, deal: Deal) -> Deal:
        others = [at for at, box in enumerate(deal.boxes) if box is not None and at != self.index_of_share - 1]
        victim = self.chance.choice(others)
        box = deal.boxes[victim]
        assert box is not None
        spoiled = replace(box, body=bytes([box.body[0] ^ 1]) + box.body[1:])
        return replace(deal, boxes=(*deal.boxes[:victim], spoiled, *deal.boxes[victim + 1 :]))


class ComplaintSpammer(KeyHolder):
    """Accuses everybody, many times over."""

    def spoken(self, operations: Sequence[Duty]) -> Sequence[Duty]:
        said = [self._accusing(word) if isinstance(word, LtsComplaint) else word for word in operations]
        if said != list(operations):
            self._reached("lie of ComplaintSpammer")
            for _ in range(3):
                self.say(said)
        return said

    def _accusing(self, honest: LtsComplaint) -> LtsComplaint:
        engine = self.node.engine
        assert engine is not None
        ceremony = joint_key.ceremony_of(honest.ceremony, engine.executor.state)
        assert ceremony is not None
        return replace(honest, cheats=tuple(dealer for dealer in ceremony.dealt if dealer != self.index_of_share))


class Mute(KeyHolder):
    """Joins every ceremony, and says no more: the others wait for it as long as a phase may last."""

    def spoken(self, operations: Sequence[Duty]) -> Sequence[Duty]:
        if all(isinstance(word, LtsInit) for word in operations):
            return operations
        self._reached("lie of Mute")
        return ()

    def answer(self, request: ShareRequest, asker: bytes) -> Answer | Code:
        return Code.E_NO_SHARE


BY_NAME: dict[str, type[KeyHolder]] = {
    kind.__name__: kind for kind in (CheatingDealer, ComplaintSpammer, FalseWitness, LyingHolder, Mute)
}
