"""Who votes, and how many of them make a quorum."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from p2pledger.primitives import limits
from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.crypto import sha256
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import Bytes16, Epoch, NodeId, ValidatorId, View


def faults(n: int) -> int:
    """f = ⌊(n−1)/3⌋: how many of n validators may lie."""
    return (n - 1) // 3


def quorum(n: int) -> int:
    """q = ⌈(n+f+1)/2⌉: two quorums share a correct validator. Never 2f+1, which fails at n = 5."""
    return (n + faults(n) + 2) // 2


class Validator(Record, frozen=True):
    """One seat: a consensus key, the node that speaks for it, and the organisation that owns it."""

    id: ValidatorId
    node: NodeId
    organisation: Bytes16


@dataclass(frozen=True)
class ValidatorSet:
    """The validators of one epoch, sorted by id."""

    members: tuple[Validator, ...]
    _index: dict[ValidatorId, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", {member.id: i for i, member in enumerate(self.members)})

    @staticmethod
    def of(members: Sequence[Validator]) -> "ValidatorSet":
        """Sorted and checked: 1..50 seats, distinct keys, no organisation with more than f seats (n ≥ 4)."""
        n = len(members)
        if not 1 <= n <= limits.VALIDATORS_MAX:
            raise InvalidInput(f"{n} validators, allowed are 1 to {limits.VALIDATORS_MAX}")
        if len({member.id for member in members}) != n or len({member.node for member in members}) != n:
            raise InvalidInput("two validators share a consensus key or a node key")
        seats: dict[bytes, int] = {}
        for member in members:
            seats[member.organisation] = seats.get(member.organisation, 0) + 1
        seats_max = max(1, faults(n))
        for organisation, held in seats.items():
            if held > seats_max:
                raise InvalidInput(
                    f"organisation {organisation.hex()} holds {held} of {n} seats, allowed are {seats_max}: "
                    "more than f could stop or fork the chain"
                )
        return ValidatorSet(tuple(sorted(members, key=lambda member: member.id)))

    @property
    def n(self) -> int:
        return len(self.members)

    @cached_property
    def f(self) -> int:
        return faults(len(self.members))

    @cached_property
    def q(self) -> int:
        return quorum(len(self.members))

    @property
    def hash(self) -> bytes:
        """SHA-256 of the canonical list; headers carry it."""
        return sha256(encode(self.members))

    def primary(self, epoch: Epoch, view: View) -> ValidatorId:
        """validators[(e + v) mod n]."""
        return self.members[(epoch + view) % len(self.members)].id

    def index(self, validator: ValidatorId) -> int | None:
        """The seat number, or None for a stranger."""
        return self._index.get(validator)

    def __contains__(self, validator: object) -> bool:
        return validator in self._index

    def of_node(self, node: NodeId) -> ValidatorId | None:
        """The validator for which a node speaks, if any."""
        return next((member.id for member in self.members if member.node == node), None)

    def node_of(self, validator: ValidatorId) -> NodeId:
        """The node that speaks for a validator of this set."""
        return self.members[self._index[validator]].node
