"""The key ceremony on the chain: the contract behind LtsInit … LtsActivate, and what the state knows of joint keys.

The rules are those of threshold/dkg.py; here stand who may begin what, and where things are kept. A new key takes
the next key epoch, a resharing the next share epoch of its key, and an attempt that failed (`Phase.FAILED`) is
followed by one with the next number. Ceremonies for different keys do not hinder each other, so that a lone
validator that begins something blocks nothing. Whether a validator joins what another has begun is its operator's
policy.

Deals stay in the state until the next sharing of the same key is active: who was away can still compute its share.
"""

from p2pledger.chain.validators import faults
from p2pledger.execution import seats
from p2pledger.execution.contract import Call, Outcome
from p2pledger.health import keys
from p2pledger.health.events import CeremonyMoved, JointKeyActivated
from p2pledger.health.joint_key_operations import LtsActivate, LtsComplaint, LtsDeal, LtsInit, LtsJustify
from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, decode, decode_again, encode
from p2pledger.primitives.errors import Code, ProofError, Refused
from p2pledger.primitives.ids import Height, Millis, ValidatorId
from p2pledger.state.view import StateView
from p2pledger.threshold import dkg
from p2pledger.threshold.dkg import Ceremony, CeremonyId, Deal, Phase, Seats
from p2pledger.threshold.long_term import JointKey


class ActiveKey(Record, frozen=True):
    """A joint key that capsules can be sealed to, and who holds shares of it."""

    key: JointKey
    holders: Seats
    """Validators; number i of them has share i + 1."""
    height: Height
    """Of the block that activated this sharing."""
    time_ms: Millis

    def index_of(self, validator: bytes) -> int | None:
        """Which share is this validator's, or None."""
        return self.holders.index(validator) + 1 if validator in self.holders else None


def init(operation: LtsInit, call: Call, state: StateView) -> Outcome:
    """Join, or begin.

    Refused: E_ROLE, E_KEY_EPOCH for anything but the next key or the next sharing of an active one, E_STATE for another
    attempt than the one that runs or is next, E_DUP, E_FORMAT.
    """
    validator = _validator(call, state)
    identifier = operation.ceremony
    before = ceremony_of(identifier, state)
    if before is None or before.at(call.time_ms).phase == Phase.FAILED:
        attempt = 0 if before is None else before.id.attempt + 1
        if identifier.attempt != attempt:
            raise Refused(Code.E_STATE)
        begun = dkg.join(_begin(identifier, call, state), validator, operation.box)
        return _kept(None, begun, call, _forgotten(identifier, state))
    current = _running(identifier, call, state)
    return _kept(before, dkg.join(current, validator, operation.box), call)


def _begin(identifier: CeremonyId, call: Call, state: StateView) -> Ceremony:
    receivers = seats.members(state)
    threshold = threshold_of(len(receivers))
    if identifier.share_epoch == 0:
        if identifier.key_epoch != newest_epoch(state) + 1:
            raise Refused(Code.E_KEY_EPOCH)
        return dkg.begin(call.chain, identifier, receivers, threshold, call.time_ms)
    active = active_key(identifier.key_epoch, state)
    if active is None or identifier.share_epoch != active.key.share_epoch + 1:
        raise Refused(Code.E_KEY_EPOCH)
    return dkg.begin(call.chain, identifier, receivers, threshold, call.time_ms, (active.key, active.holders))


def deal(operation: LtsDeal, call: Call, state: StateView) -> Outcome:
    """Take a deal. Refused: E_ROLE, E_NOT_FOUND, E_STATE, E_DUP, E_DEAL."""
    validator = _validator(call, state)
    before = _running(operation.ceremony, call, state)
    after = dkg.deal(before, validator, operation.deal)
    where = keys.deal(operation.ceremony, before.dealer(validator))
    return _kept(before, after, call, {where: encode(operation.deal)})


def complain(operation: LtsComplaint, call: Call, state: StateView) -> Outcome:
    """Take a report. Refused: E_ROLE, E_NOT_FOUND, E_STATE, E_DUP, E_FORMAT."""
    validator = _validator(call, state)
    before = _running(operation.ceremony, call, state)
    return _kept(before, dkg.report(before, validator, operation.cheats), call)


def justify(operation: LtsJustify, call: Call, state: StateView) -> Outcome:
    """Take an answer to a complaint. Refused: E_ROLE, E_NOT_FOUND, E_STATE, E_DUP, E_DEAL."""
    validator = _validator(call, state)
    before = _running(operation.ceremony, call, state)
    dealer = before.dealer(validator)
    if dealer not in before.dealt:
        raise Refused(Code.E_NOT_FOUND)
    own = _deal_of(operation.ceremony, dealer, state)
    after = dkg.justify(before, validator, operation.receiver, operation.share, own)
    where = keys.shown_share(operation.ceremony, dealer, operation.receiver)
    return _kept(before, after, call, {where: operation.share})


def activate(operation: LtsActivate, call: Call, state: StateView) -> Outcome:
    """Take a confirmation; the t-th makes the key active.

    Refused: E_ROLE, E_NOT_FOUND, E_STATE, E_DUP, E_DEAL for a digest of another key.
    """
    validator = _validator(call, state)
    before = _running(operation.ceremony, call, state)
    if before.phase != Phase.CONFIRM:
        raise Refused(Code.E_STATE)
    key = outcome_of(before, state)
    after = dkg.confirm(before, validator, operation.key, key)
    writes: dict[bytes, bytes | None] = {keys.outcome(operation.ceremony): encode(key)}
    if after.phase != Phase.ACTIVE:
        return _kept(before, after, call, writes)
    active = ActiveKey(key, after.receivers, call.height, call.time_ms)
    writes[keys.joint_key(key.key_epoch)] = encode(active)
    if key.share_epoch == 0:
        writes[keys.NEWEST_KEY] = encode(key.key_epoch)
    else:
        writes |= _forgotten(CeremonyId(key.key_epoch, key.share_epoch - 1, 0), state)
    kept = _kept(before, after, call, writes)
    event = JointKeyActivated(key.key_epoch, key.share_epoch, key.public)
    return Outcome(kept.writes, [*kept.events, encode(event)])


def _validator(call: Call, state: StateView) -> ValidatorId:
    validator = seats.validator_of(call.author, state)
    if validator is None:
        raise Refused(Code.E_ROLE)
    return validator


def _running(identifier: CeremonyId, call: Call, state: StateView) -> Ceremony:
    """The ceremony as it stands at this block; raises Refused(E_NOT_FOUND), E_STATE for another attempt."""
    ceremony = ceremony_of(identifier, state)
    if ceremony is None:
        raise Refused(Code.E_NOT_FOUND)
    if ceremony.id != identifier:
        raise Refused(Code.E_STATE)
    return ceremony.at(call.time_ms)


def _kept(
    before: Ceremony | None, after: Ceremony, call: Call, writes: dict[bytes, bytes | None] | None = None
) -> Outcome:
    """What one message changes; an event where a phase begins."""
    closed = after.at(call.time_ms)
    identifier = closed.id
    events = []
    if before is None or before.phase != closed.phase:
        moved = CeremonyMoved(identifier.key_epoch, identifier.share_epoch, identifier.attempt, int(closed.phase))
        events.append(encode(moved))
    return Outcome({**(writes or {}), keys.ceremony(identifier): encode(closed)}, events)


def _forgotten(identifier: CeremonyId, state: StateView) -> dict[bytes, bytes | None]:
    """Delete what was dealt in earlier attempts at this sharing."""
    prefixes = (keys.deals(identifier), keys.shown_shares(identifier), keys.outcome(identifier))
    return {key: None for prefix in prefixes for key, _ in state.scan(prefix)}


# What the state knows


def threshold_of(n: int) -> int:
    """t = n − f: as many shares as agreement needs honest validators."""
    return n - faults(n)


def ceremony_of(identifier: CeremonyId, state: StateView) -> Ceremony | None:
    """The newest attempt at this sharing, as its last message left it; `at` tells how it stands by now."""
    data = state.get(keys.ceremony(identifier))
    return None if data is None else decode_ceremony(data)


def decode_ceremony(data: bytes) -> Ceremony:
    """The state value under `keys.ceremony`."""
    return decode(Ceremony, data, limits.CEREMONY_BYTES_MAX)


def deals_of(ceremony: Ceremony, state: StateView) -> dict[int, Deal]:
    """What was dealt in it, by dealer."""
    return {dealer: _deal_of(ceremony.id, dealer, state) for dealer in ceremony.dealt}


def _deal_of(identifier: CeremonyId, dealer: int, state: StateView) -> Deal:
    data = state.get(keys.deal(identifier, dealer))
    assert data is not None, f"dealer {dealer} has dealt, and its deal is gone"
    return decode(Deal, data, limits.STATE_VALUE_BYTES_MAX)


def shown_in(ceremony: Ceremony, state: StateView) -> dict[tuple[int, int], bytes]:
    """The sub-shares that were shown to all, by (dealer, receiver)."""
    shown = {pair: state.get(keys.shown_share(ceremony.id, *pair)) for pair in ceremony.justified}
    return {pair: share for pair, share in shown.items() if share is not None}


def outcome_of(ceremony: Ceremony, state: StateView) -> JointKey:
    """The key that a ceremony has led to. Raises Refused(E_DEAL) where the deals make none."""
    data = state.get(keys.outcome(ceremony.id))
    if data is not None:
        return decode(JointKey, data, limits.STATE_VALUE_BYTES_MAX)
    try:
        return dkg.outcome(ceremony, deals_of(ceremony, state))
    except ProofError as error:
        raise Refused(Code.E_DEAL) from error


def active_key(key_epoch: int, state: StateView) -> ActiveKey | None:
    """The key of an epoch, in its newest sharing."""
    data = state.get(keys.joint_key(key_epoch))
    return None if data is None else decode_active_key(data)


def decode_active_key(data: bytes) -> ActiveKey:
    """The state value under `keys.joint_key`."""
    active: ActiveKey = decode_again(ActiveKey, data, limits.STATE_VALUE_BYTES_MAX)
    return active


def newest_epoch(state: StateView) -> int:
    """The newest key epoch that has an active key; 0: there is none yet."""
    return decode_epoch(state.get(keys.NEWEST_KEY))


def decode_epoch(data: bytes | None) -> int:
    """The state value under `keys.NEWEST_KEY`."""
    return 0 if data is None else decode(int, data, 9)


def newest_key(state: StateView) -> ActiveKey | None:
    """What writers seal to."""
    return active_key(newest_epoch(state), state)


def next_key(state: StateView, time_ms: int) -> CeremonyId:
    """The ceremony for a new key that runs, or can be begun."""
    return _next(newest_epoch(state) + 1, 0, state, time_ms)


def next_sharing(active: ActiveKey, state: StateView, time_ms: int) -> CeremonyId:
    """The ceremony for new shares of this key that runs, or can be begun."""
    return _next(active.key.key_epoch, active.key.share_epoch + 1, state, time_ms)


def running(state: StateView, time_ms: int) -> Ceremony | None:
    """The ceremony that is under way for a new key, or for new shares of the newest one; None: neither is."""
    active = newest_key(state)
    identifiers = [next_key(state, time_ms)] + ([] if active is None else [next_sharing(active, state, time_ms)])
    newest = (ceremony_of(identifier, state) for identifier in identifiers)
    found = (ceremony.at(time_ms) for ceremony in newest if ceremony is not None)
    return next((ceremony for ceremony in found if ceremony.id in identifiers), None)


def _next(key_epoch: int, share_epoch: int, state: StateView, time_ms: int) -> CeremonyId:
    identifier = CeremonyId(key_epoch, share_epoch, 0)
    last = ceremony_of(identifier, state)
    if last is None:
        return identifier
    has_failed = last.at(time_ms).phase == Phase.FAILED
    return CeremonyId(key_epoch, share_epoch, last.id.attempt + has_failed)
