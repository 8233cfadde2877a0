"""A consortium whose keys depend on nothing but their names: the same for the same arguments, on every machine."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from p2pledger.chain.genesis import Card, Founding, Genesis, Parameters, combine, sign_card, sign_genesis
from p2pledger.chain.genesis import assemble as assemble_genesis
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.ids import AccountKey, Millis, NodeId, ValidatorId

WALL_START_MS = 1_750_000_000_000
"""Unix time in milliseconds at which every virtual world begins."""


def seeded_key(*parts: object) -> SigningKey:
    """A key that depends on nothing but its name."""
    return SigningKey(hashlib.sha256(repr(parts).encode()).digest())


@dataclass(frozen=True)
class Consortium:
    """A founded chain with all its keys."""

    founding: Founding
    accounts: list[SigningKey]
    consensus: list[SigningKey]
    nodes: list[SigningKey]

    def validator(self, index: int) -> ValidatorId:
        """The id under which a member votes."""
        return ValidatorId(self.consensus[index].public)


def found(
    n: int, parameters: Parameters, certificate_of: Callable[[SigningKey], bytes] = lambda key: b""
) -> Consortium:
    """A consortium of n members with one validator each, the same for the same arguments.

    `certificate_of` makes the transport certificate of a node key; where nothing is transported there is none.
    """
    accounts = [seeded_key("account", i) for i in range(n)]
    consensus = [seeded_key("consensus", i) for i in range(n)]
    nodes = [seeded_key("node", i) for i in range(n)]
    cards = []
    for i in range(n):
        organisation = hashlib.sha256(b"organisation %d" % i).digest()[:16]
        card = Card(
            organisation,
            f"Member {i}",
            "hospital",
            AccountKey(accounts[i].public),
            bytes(32),
            ValidatorId(consensus[i].public),
            NodeId(nodes[i].public),
            certificate_of(nodes[i]),
        )
        cards.append(sign_card(card, accounts[i]))
    genesis: Genesis = assemble_genesis("Simulated", Millis(WALL_START_MS - 1_000), parameters, cards)
    signed = combine(genesis, {AccountKey(key.public): sign_genesis(genesis, key) for key in accounts})
    order = {card.account: i for i, card in enumerate(genesis.cards)}
    ranked = sorted(range(n), key=lambda i: order[AccountKey(accounts[i].public)])
    return Consortium(
        Founding(signed), [accounts[i] for i in ranked], [consensus[i] for i in ranked], [nodes[i] for i in ranked]
    )
