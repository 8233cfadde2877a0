"""What the chain waits for from one validator in a key ceremony, and the words that answer it.

The edge (the node) keeps the seed, decides which ceremonies to begin or to join, sends, and stores:

1. `owed` names the phase in which this validator still owes a word. Before the first one, its seed must be durable.
2. `answer` makes the words from the seed and the state. Before those of CONFIRM are sent, the share in them must be
   durable.
3. Who was away, or came after t others had confirmed, gets its share with `late_share`.
4. When `joint_key.active_key` shows a newer sharing, older shares and the seeds of ended ceremonies are deleted.

After a crash at any moment the same steps lead to the same words; those that the chain has already are not owed.
"""

from dataclasses import dataclass

from p2pledger.execution import seats
from p2pledger.execution.contract import Duty
from p2pledger.health import joint_key
from p2pledger.health.joint_key_operations import LtsActivate, LtsComplaint, LtsDeal, LtsInit, LtsJustify
from p2pledger.primitives.ids import ValidatorId
from p2pledger.state.view import StateView
from p2pledger.threshold.dkg import Ceremony, CeremonyId, Phase
from p2pledger.threshold.long_term import LongTermHolder
from p2pledger.threshold.participant import Participant


@dataclass(frozen=True, slots=True)
class Words:
    """What to send, as one transaction of the validator's node."""

    operations: tuple[Duty, ...]
    share: bytes | None = None
    """The secret share of the new key, to be durable before anything of this is sent."""

    def __repr__(self) -> str:
        return f"Words({len(self.operations)} operations)"


def owed(ceremony: Ceremony | None, validator: bytes, time_ms: int) -> Phase | None:
    """The phase that this validator has not spoken in yet, at this block time; None: nothing is to be said now.

    JOIN also where nobody has begun; after a failure `joint_key.next_key` names the next attempt. `time_ms` is what
    the next block's time will be at least: the own clock less the drift, or the last block's time if that is later.
    A word that comes too early is refused (E_STATE) and said again.
    """
    if ceremony is None:
        return Phase.JOIN
    now = ceremony.at(time_ms)
    return now.phase if _is_owed(now, validator) else None


def _is_owed(ceremony: Ceremony, validator: bytes) -> bool:
    receiver = ceremony.receivers.index(validator) + 1 if validator in ceremony.receivers else None
    dealer = ceremony.dealers.index(validator) + 1 if validator in ceremony.dealers else None
    has_joined = receiver in ceremony.joined
    match ceremony.phase:
        case Phase.JOIN:
            return receiver is not None and not has_joined
        case Phase.DEAL:
            is_expected = has_joined if ceremony.source is None else dealer is not None
            return is_expected and dealer not in ceremony.dealt
        case Phase.REPORT:
            return has_joined and receiver not in ceremony.reported
        case Phase.JUSTIFY:
            return any(pair[0] == dealer and pair not in ceremony.justified for pair in ceremony.complaints)
        case Phase.CONFIRM:
            return has_joined and receiver not in ceremony.confirmed
        case Phase.ACTIVE | Phase.FAILED:
            return False


def answer(identifier: CeremonyId, participant: Participant, validator: bytes, state: StateView, time_ms: int) -> Words:
    """The words that are owed in this ceremony, perhaps none: who gave up its seat begins nothing, and deals once more.

    Raises ProofError where this validator cannot do its part: its seed is another than it joined with. Without a share
    to deal anew it says nothing then, and still receives.
    """
    ceremony = joint_key.ceremony_of(identifier, state)
    if ceremony is None or ceremony.id != identifier:
        is_seated = seats.seat_of(ValidatorId(validator), state) is not None
        return Words((LtsInit(identifier, participant.box.public),) if is_seated else ())
    now = ceremony.at(time_ms)
    if not _is_owed(now, validator):
        return Words(())
    match now.phase:
        case Phase.JOIN:
            return Words((LtsInit(identifier, participant.box.public),))
        case Phase.DEAL:
            if not participant.can_deal(now):
                return Words(())
            return Words((LtsDeal(identifier, participant.deal(now, validator)),))
        case Phase.REPORT:
            cheats = participant.cheats(now, validator, joint_key.deals_of(now, state))
            return Words((LtsComplaint(identifier, cheats),))
        case Phase.JUSTIFY:
            return Words(_justifications(now, participant, validator))
        case Phase.CONFIRM:
            holder, share = _holder(now, participant, validator, state)
            return Words((LtsActivate(identifier, holder.key.digest),), share)
        case Phase.ACTIVE | Phase.FAILED:
            return Words(())


def late_share(identifier: CeremonyId, participant: Participant, validator: bytes, state: StateView) -> bytes | None:
    """The share of a validator that joined and was away, or not needed, when t others made the key active.

    None where it has none: it did not join, or a newer sharing has taken the place of this one. Raises ProofError where
    what was dealt to it makes no share.
    """
    ceremony = joint_key.ceremony_of(identifier, state)
    active = joint_key.active_key(identifier.key_epoch, state)
    if ceremony is None or ceremony.id != identifier or ceremony.phase != Phase.ACTIVE:
        return None
    if active is None or active.key.share_epoch != identifier.share_epoch:
        return None
    if validator not in ceremony.receivers or ceremony.receiver(validator) not in ceremony.joined:
        return None
    return _holder(ceremony, participant, validator, state)[1]


def _holder(
    ceremony: Ceremony, participant: Participant, validator: bytes, state: StateView
) -> tuple[LongTermHolder, bytes]:
    deals, shown = joint_key.deals_of(ceremony, state), joint_key.shown_in(ceremony, state)
    return participant.holder(ceremony, validator, deals, shown)


def _justifications(ceremony: Ceremony, participant: Participant, validator: bytes) -> tuple[Duty, ...]:
    dealer = ceremony.dealer(validator)
    return tuple(
        LtsJustify(ceremony.id, receiver, participant.justification(ceremony, receiver))
        for accused, receiver in ceremony.complaints
        if accused == dealer and (accused, receiver) not in ceremony.justified
    )
