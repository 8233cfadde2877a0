"""What one validator does about joint keys: which secrets to keep and delete, and what to send to the chain and when.

Pure: told how things stand, it answers what must be done, in order. `key_duties` makes the words, `release_receipts`
knows what is unreported; here are begin, retry, lateness, deletion and batching.

Whoever drives it, the node (node/sharing.py) or a simulator,

1. makes one from what is durable: the secrets, the entries not yet reported, the wishes. Nothing else outlives a crash;
2. calls `step` after each executed block and at least every `STEP_MS`, with the state as of that moment, and performs
   the effects in their order: one after a `WriteSecret` only when that is durable. It may crash between any two, also
   inside `Send`: a new keeper made from what is durable ends at the same place;
3. passes the operations of a `Send` to its engine as `engine.events.DutiesOwed`. They may be lost; they are said again;
4. makes release entries durable (`health/release.py`), calls `entered`, and only then lets shares leave, which it makes
   with `holder`.

That is all of a validator's part: in a simulator secrets are a dict, entries another one, and a crash keeps both.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from p2pledger.execution import seats
from p2pledger.execution.contract import Duty
from p2pledger.health import joint_key, key_duties, release_receipts
from p2pledger.health.joint_key import ActiveKey
from p2pledger.health.release_operations import ReleaseReceipt
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record
from p2pledger.primitives.errors import ProofError
from p2pledger.primitives.ids import ChainId, ValidatorId
from p2pledger.state.view import StateView
from p2pledger.threshold.dkg import Ceremony, CeremonyId, Phase
from p2pledger.threshold.group import Random
from p2pledger.threshold.long_term import LongTerm, LongTermHolder
from p2pledger.threshold.participant import Participant

STEP_MS = 500
"""Phases end by time, too."""
SAY_AGAIN_MS = (4_000, 60_000)
"""Words that the chain was not seen to take are said again after the first; each time later, up to the second."""
REPORT_MS = 2_000
"""Releases are gathered for so long before they are reported together."""
REPORT_AGAIN_MS = 15_000


class SecretName(Record, frozen=True):
    """Which secret of a ceremony."""

    kind: Literal["seed", "share"]
    """What makes this validator's words in it; what it has got from it."""
    ceremony: CeremonyId

    @property
    def sharing(self) -> tuple[int, int]:
        """(key epoch, share epoch)."""
        return self.ceremony.key_epoch, self.ceremony.share_epoch

    def __str__(self) -> str:
        of = self.ceremony
        return f"{self.kind}-{of.key_epoch}-{of.share_epoch}-{of.attempt}"


class Wish(Record, frozen=True):
    """A sharing that the operator wants begun; it stands until that sharing is active."""

    key_epoch: int
    share_epoch: int
    """0: a new key."""

    def __str__(self) -> str:
        return f"wish-{self.key_epoch}-{self.share_epoch}"


@dataclass(frozen=True, slots=True)
class Sight:
    """How things stand."""

    state: StateView
    block_ms: int
    """Time of the last block."""
    time_ms: int
    """What the next block's time will be at least: the own clock less the drift, or the last block's, if later."""
    monotonic_ms: int
    is_ready: bool
    """Whether the state is that of the chain's tip, or nearly."""
    all_linked: bool
    """Whether all members can be talked to."""


# Effects, to be performed in order


@dataclass(frozen=True, slots=True, repr=False)
class WriteSecret:
    """Durable before anything after it."""

    name: SecretName
    secret: bytes

    def __repr__(self) -> str:
        return f"WriteSecret({self.name})"


@dataclass(frozen=True, slots=True)
class DeleteSecret:
    """Beyond recovery, as far as the medium allows; whether it is gone already makes no difference."""

    name: SecretName


@dataclass(frozen=True, slots=True)
class Send:
    """One transaction of the validator's node."""

    operations: tuple[Duty, ...]


@dataclass(frozen=True, slots=True)
class Reported:
    """The chain knows of so many records of these accesses."""

    counts: Mapping[bytes, int]


@dataclass(frozen=True, slots=True)
class DropWish:
    """Fulfilled, or never to be."""

    wish: Wish


@dataclass(frozen=True, slots=True)
class Tell:
    """For the log: a past-tense name, and values that are never secret nor personal."""

    name: str
    values: Mapping[str, str]


KeeperEffect: TypeAlias = WriteSecret | DeleteSecret | Send | Reported | DropWish | Tell


@dataclass(frozen=True, slots=True, repr=False)
class _Held:
    """A share that is that of an active key."""

    name: SecretName
    holder: LongTermHolder
    share: bytes


@dataclass(slots=True)
class _Said:
    """When to say it again."""

    due_ms: int
    wait_ms: int


class KeyKeeper:
    """One validator's secrets and debts."""

    def __init__(
        self,
        chain: ChainId,
        validator: ValidatorId,
        secrets: Mapping[SecretName, bytes],
        unreported: Mapping[bytes, int],
        wishes: Iterable[Wish],
        random: Random,
        *,
        begins: bool,
    ) -> None:
        """`begins`: whether to begin the first key, once all members are linked. `random` makes seeds."""
        self._chain = chain
        self._validator = validator
        self._secrets = dict(secrets)
        self._unreported = dict(unreported)
        self._wishes = set(wishes)
        self._random = random
        self._begins = begins
        self._said: dict[tuple[CeremonyId, Phase], _Said] = {}
        self._given_up: set[CeremonyId] = set()
        """Ceremonies in which this validator cannot do its part; said once."""
        self._reporting: dict[bytes, int] = {}
        """What the last report was about, until the chain knows."""
        self._report_ms: int | None = None
        self._report_most = limits.RELEASES_REPORTED_MAX
        self._reported_to = b""
        """The last access of the last report: the next one begins after it, and comes round."""
        self._holders: dict[int, _Held] = {}
        """By key epoch; of its newest sharing."""

    def __repr__(self) -> str:
        return f"KeyKeeper({sorted(map(str, self._secrets))})"

    # What it knows

    @property
    def names(self) -> tuple[SecretName, ...]:
        """Of the secrets that are kept."""
        return tuple(sorted(self._secrets, key=str))

    @property
    def unreported(self) -> int:
        """Accesses with releases that the chain was not seen to know."""
        return len(self._unreported)

    def holder(self, active: ActiveKey) -> LongTermHolder | None:
        """This validator with its share of an active key, or None where it has none: of this sharing, not of others."""
        held = self._held(active)
        return None if held is None else held.holder

    def _held(self, active: ActiveKey) -> "_Held | None":
        known = self._holders.get(active.key.key_epoch)
        if known is not None and known.holder.key == active.key:
            return known
        index = active.index_of(self._validator)
        if index is None:
            return None
        for name, share in self._secrets.items():
            if name.kind != "share" or name.sharing != (active.key.key_epoch, active.key.share_epoch):
                continue
            try:
                held = _Held(name, LongTermHolder(LongTerm(active.key), index, share), share)
            except ProofError:
                continue  # of an attempt that failed
            self._holders[active.key.key_epoch] = held
            return held
        return None

    # What happens

    def entered(self, totals: Mapping[bytes, int]) -> None:
        """Release entries are durable: by access, of how many different records there are entries now."""
        self._unreported.update(totals)

    def wished(self, wish: Wish) -> None:
        """The operator wants a ceremony; the wish is durable."""
        self._wishes.add(wish)

    def step(self, sight: Sight) -> list[KeeperEffect]:
        """What must be done now, in order. Nothing, where the state may be an old one."""
        if not sight.is_ready:
            return []
        return [*self._speak(sight), *self._receive(sight), *self._clean(sight), *self._report(sight)]

    # Ceremonies

    def _speak(self, sight: Sight) -> Iterator[KeeperEffect]:
        self._forget_said(sight)
        for identifier in _next_ceremonies(sight):
            ceremony = _running(identifier, sight.state)
            if ceremony is not None or self._may_begin(identifier, sight):
                yield from self._take_part(identifier, ceremony, sight)

    def _may_begin(self, identifier: CeremonyId, sight: Sight) -> bool:
        if seats.seat_of(self._validator, sight.state) is None:
            return False
        if Wish(identifier.key_epoch, identifier.share_epoch) in self._wishes:
            return True
        is_first = (identifier.key_epoch, identifier.share_epoch) == (1, 0)
        return self._begins and is_first and sight.all_linked

    def _take_part(self, identifier: CeremonyId, ceremony: Ceremony | None, sight: Sight) -> Iterator[KeeperEffect]:
        phase = key_duties.owed(ceremony, self._validator, sight.time_ms)
        if phase is None or identifier in self._given_up or not self._is_due((identifier, phase), sight):
            return
        seed_name = SecretName("seed", identifier)
        if seed_name not in self._secrets and self._is_first_word(phase, ceremony):
            yield self._kept(seed_name, self._random(32))
        seed = self._secrets.get(seed_name)
        if seed is None:
            yield self._gave_up(identifier, "the seed that it joined with is not here")
            return
        participant = Participant(self._chain, identifier, seed, self._share_to_deal(identifier, sight.state))
        try:
            words = key_duties.answer(identifier, participant, self._validator, sight.state, sight.time_ms)
        except ProofError as error:
            yield self._gave_up(identifier, str(error))
            return
        if words.share is not None:
            yield self._kept(SecretName("share", identifier), words.share)
        if words.operations:
            yield Send(words.operations)

    def _is_first_word(self, phase: Phase, ceremony: Ceremony | None) -> bool:
        """To join, or, of a holder that has given up its seat, to deal."""
        if phase == Phase.DEAL:
            return ceremony is not None and self._validator not in ceremony.receivers
        return phase == Phase.JOIN

    def _share_to_deal(self, identifier: CeremonyId, state: StateView) -> bytes | None:
        """For new shares of a key the one of its present sharing."""
        active = joint_key.active_key(identifier.key_epoch, state) if identifier.share_epoch else None
        held = None if active is None else self._held(active)
        return None if held is None else held.share

    def _is_due(self, what: tuple[CeremonyId, Phase], sight: Sight) -> bool:
        """Whether to say it now: the first time, or again after a while."""
        said = self._said.get(what)
        if said is not None and sight.monotonic_ms < said.due_ms:
            return False
        first_ms, most_ms = SAY_AGAIN_MS
        wait_ms = first_ms if said is None else min(2 * said.wait_ms, most_ms)
        self._said[what] = _Said(sight.monotonic_ms + wait_ms, wait_ms)
        return True

    def _forget_said(self, sight: Sight) -> None:
        """Of ceremonies that are over."""
        going_on = set(_next_ceremonies(sight))
        self._said = {what: said for what, said in self._said.items() if what[0] in going_on}
        made = (_made_by(active, sight.state) for active in _active_keys(sight.state))
        self._given_up &= going_on | {ceremony.id for ceremony in made if ceremony is not None}

    def _kept(self, name: SecretName, secret: bytes) -> WriteSecret:
        self._secrets[name] = secret
        return WriteSecret(name, secret)

    def _gave_up(self, identifier: CeremonyId, reason: str) -> Tell:
        self._given_up.add(identifier)
        return Tell("ceremony_given_up", {"ceremony": _named(identifier), "reason": reason})

    # After a ceremony

    def _receive(self, sight: Sight) -> Iterator[KeeperEffect]:
        """The share of a key that t others have made active without us."""
        for active in _active_keys(sight.state):
            ceremony = _made_by(active, sight.state)
            if ceremony is None or self.holder(active) is not None or ceremony.id in self._given_up:
                continue
            seed = self._secrets.get(SecretName("seed", ceremony.id))
            if seed is None:
                continue
            participant = Participant(self._chain, ceremony.id, seed)
            try:
                share = key_duties.late_share(ceremony.id, participant, self._validator, sight.state)
            except ProofError as error:
                yield self._gave_up(ceremony.id, str(error))
                continue
            if share is not None:
                yield self._kept(SecretName("share", ceremony.id), share)
                yield Tell("share_received_late", {"ceremony": _named(ceremony.id)})

    def _clean(self, sight: Sight) -> Iterator[KeeperEffect]:
        """Secrets of what is over: whoever comes by them later must find nothing (I-10)."""
        for name in self.names:
            if self._is_over(name, sight):
                self._forget(name)
                yield DeleteSecret(name)
        for wish in sorted(self._wishes, key=str):
            if _is_settled(wish, sight.state):
                self._wishes.remove(wish)
                yield DropWish(wish)

    def _forget(self, name: SecretName) -> None:
        del self._secrets[name]
        self._holders = {epoch: held for epoch, held in self._holders.items() if held.name != name}

    def _is_over(self, name: SecretName, sight: Sight) -> bool:
        of = name.ceremony
        active = joint_key.active_key(of.key_epoch, sight.state)
        if active is not None and active.key.share_epoch > of.share_epoch:
            return True
        newest = joint_key.ceremony_of(of, sight.state)
        if newest is None:
            return False
        if newest.id.attempt > of.attempt:
            return True
        if newest.id != of:
            return False  # the chain has not come to this attempt yet
        ceremony = newest.at(sight.block_ms)  # not later: what the chain has not ended may still go on
        if ceremony.phase == Phase.FAILED:
            return True
        if name.kind == "share" or ceremony.phase != Phase.ACTIVE or active is None:
            return False
        return self.holder(active) is not None or not _has_joined(self._validator, ceremony)

    # Reports

    def _report(self, sight: Sight) -> Iterator[KeeperEffect]:
        """Tell the chain what has left, in batches; a report that was lost is made again."""
        if self._reporting:
            owed = self._owed(self._reporting, sight)
            known = {access_id: count for access_id, count in self._reporting.items() if access_id not in owed}
            if known:
                yield Reported(known)
                self._settle(known)
                self._report_most = limits.RELEASES_REPORTED_MAX
            if not self._reporting:
                self._report_ms = None
        if not self._unreported:
            return
        if self._report_ms is None:
            self._report_ms = sight.monotonic_ms + REPORT_MS
        if sight.monotonic_ms < self._report_ms:
            return
        if self._reporting:  # lost, or refused as a whole because of one of them: fewer together, others first
            self._report_most = max(1, min(len(self._reporting), self._report_most) // 2)
        turn = sorted(self._unreported, key=lambda access_id: (access_id <= self._reported_to, access_id))
        first = turn[: self._report_most]
        self._reported_to = first[-1]
        self._reporting = {access_id: self._unreported[access_id] for access_id in first}
        self._report_ms = sight.monotonic_ms + REPORT_AGAIN_MS
        releases = release_receipts.unreported(self._reporting, self._validator, sight.state)
        if releases:
            yield Send((ReleaseReceipt(releases),))

    def _owed(self, counts: Mapping[bytes, int], sight: Sight) -> set[bytes]:
        owed = release_receipts.unreported(counts, self._validator, sight.state)
        return {released.access_id for released in owed}

    def _settle(self, known: Mapping[bytes, int]) -> None:
        for access_id, count in known.items():
            del self._reporting[access_id]
            if self._unreported.get(access_id) == count:
                del self._unreported[access_id]


def _next_ceremonies(sight: Sight) -> list[CeremonyId]:
    """That run, or can be begun: for a new key, and for new shares of each that there is."""
    state, time_ms = sight.state, sight.time_ms
    sharings = [joint_key.next_sharing(active, state, time_ms) for active in _active_keys(state)]
    return [joint_key.next_key(state, time_ms), *sharings]


def _active_keys(state: StateView) -> list[ActiveKey]:
    found = (joint_key.active_key(epoch, state) for epoch in range(1, joint_key.newest_epoch(state) + 1))
    return [active for active in found if active is not None]


def _running(identifier: CeremonyId, state: StateView) -> Ceremony | None:
    """The ceremony of this id, which has not failed; None: nobody has begun it."""
    newest = joint_key.ceremony_of(identifier, state)
    return newest if newest is not None and newest.id == identifier else None


def _made_by(active: ActiveKey, state: StateView) -> Ceremony | None:
    """The ceremony that has led to it."""
    return joint_key.ceremony_of(CeremonyId(active.key.key_epoch, active.key.share_epoch, 0), state)


def _has_joined(validator: ValidatorId, ceremony: Ceremony) -> bool:
    return validator in ceremony.receivers and ceremony.receiver(validator) in ceremony.joined


def _is_settled(wish: Wish, state: StateView) -> bool:
    """Whether the sharing is there, or its key is not and the wish is not for the next one."""
    if wish.share_epoch == 0:
        return wish.key_epoch != joint_key.newest_epoch(state) + 1
    active = joint_key.active_key(wish.key_epoch, state)
    return active is None or active.key.share_epoch + 1 != wish.share_epoch


def _named(identifier: CeremonyId) -> str:
    return f"{identifier.key_epoch}.{identifier.share_epoch}.{identifier.attempt}"
