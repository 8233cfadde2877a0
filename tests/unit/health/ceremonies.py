"""Key ceremonies on a chain in memory, held by validators whose nodes do what key_duties.py says."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from p2pledger.execution import keys as execution_keys
from p2pledger.execution import seats
from p2pledger.health import joint_key, key_duties
from p2pledger.health.joint_key import ActiveKey
from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.crypto import SigningKey, sha256
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import AccountKey, Epoch, ValidatorId
from p2pledger.threshold.dkg import CeremonyId
from p2pledger.threshold.long_term import LongTerm, LongTermHolder
from p2pledger.threshold.participant import Participant
from tests.unit.execution.ledger import Ledger, key


@dataclass
class Keeper:
    """A validator's node: its seeds and shares are what it has on disk."""

    ledger: Ledger
    node: SigningKey
    validator: ValidatorId
    shares: dict[tuple[int, int], bytes] = field(default_factory=dict)
    """By key epoch and share epoch."""

    def participant(self, identifier: CeremonyId) -> Participant:
        """Made anew each time: nothing but seed and shares outlives a call."""
        seed = sha256(b"seed" + self.validator)
        share = self.shares.get((identifier.key_epoch, identifier.share_epoch - 1))
        return Participant(self.ledger.chain, identifier, seed, share)

    def words(self, identifier: CeremonyId) -> tuple[Record, ...]:
        """What it would send now; its share is kept before."""
        now = self.ledger.now_ms
        words = key_duties.answer(identifier, self.participant(identifier), self.validator, self.ledger.state, now)
        if words.share is not None:
            self.shares[identifier.key_epoch, identifier.share_epoch] = words.share
        return words.operations

    def speak(self, identifier: CeremonyId) -> Code | None:
        """Send what is owed; None where nothing is."""
        operations = self.words(identifier)
        return self.ledger.submit(self.node, *operations) if operations else None

    def holder(self, key_epoch: int = 1) -> LongTermHolder:
        active = joint_key.active_key(key_epoch, self.ledger.state)
        assert active is not None
        index = active.index_of(self.validator)
        assert index is not None
        return LongTermHolder(LongTerm(active.key), index, self.shares[key_epoch, active.key.share_epoch])


def keepers_of(ledger: Ledger) -> list[Keeper]:
    """In the order of the seats."""
    nodes = [key(f"node of {card.name}") for card in ledger.founding.genesis.cards]
    found = {seats.validator_of(AccountKey(node.public), ledger.state): node for node in nodes}
    return [Keeper(ledger, found[validator], validator) for validator in seats.members(ledger.state)]


def seat_at(ledger: Ledger, validators: Collection[ValidatorId]) -> None:
    """These and no others have a seat from now on; every node's account goes on speaking for its validator."""
    gone = set(seats.members(ledger.state)) - set(validators)
    seat = encode(seats.Seat(Epoch(0)))
    ledger.state.apply({execution_keys.seat(validator): None for validator in gone})
    ledger.state.apply({execution_keys.seat(validator): seat for validator in validators})


def hold(ledger: Ledger, identifier: CeremonyId, keepers: Sequence[Keeper]) -> ActiveKey:
    """The ceremony, to its end; with waiting where somebody is silent."""
    for _ in range(10):
        answers = [keeper.speak(identifier) for keeper in keepers]
        assert set(answers) <= {None, Code.OK}, answers
        active = joint_key.active_key(identifier.key_epoch, ledger.state)
        if active is not None and active.key.share_epoch == identifier.share_epoch:
            return active
        ceremony = joint_key.ceremony_of(identifier, ledger.state)
        assert ceremony is not None
        if answers == [None] * len(keepers):
            ledger.now_ms = ceremony.since_ms + ceremony.phase_ms
    raise AssertionError(f"ceremony {identifier} does not end")
