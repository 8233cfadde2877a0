"""A chain in memory for tests: whoever signs, blocks run one after the other on a state that grows."""

from collections.abc import Sequence

from msgspec.structs import replace

from p2pledger.chain import batch as batches
from p2pledger.chain.block import Header
from p2pledger.chain.genesis import Card, Founding, Parameters, assemble, combine, sign_card, sign_genesis
from p2pledger.chain.transaction import Transaction, sign
from p2pledger.execution import seats
from p2pledger.execution.contract import Application
from p2pledger.execution.execute import BlockEffects, execute_block
from p2pledger.primitives.codec import Record
from p2pledger.primitives.crypto import SigningKey, sha256
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import AccountKey, Bytes16, Bytes32, Height, Millis, NodeId, Nonce, ValidatorId
from p2pledger.state.overlay import Overlay
from p2pledger.state.view import NOTHING

GENESIS_MS = 1_790_000_000_000
HOUR_MS = 3_600_000


def key(name: str) -> SigningKey:
    """The key of this name, the same in every run."""
    return SigningKey(sha256(b"key of " + name.encode()))


def id16(name: str) -> Bytes16:
    return Bytes16(sha256(b"id of " + name.encode())[:16])


def hash32(name: str) -> Bytes32:
    return Bytes32(sha256(b"hash of " + name.encode()))


def founding_of(names: Sequence[str], parameters: Parameters | None = None) -> Founding:
    """A consortium of hospitals of these names."""
    cards = [
        Card(
            id16(name),
            name,
            "hospital",
            AccountKey(key(name).public),
            hash32(f"box of {name}"),
            ValidatorId(key(f"validator of {name}").public),
            NodeId(key(f"node of {name}").public),
            b"certificate",
        )
        for name in names
    ]
    signed = [sign_card(card, key(card.name)) for card in cards]
    genesis = assemble("test", Millis(GENESIS_MS), parameters or Parameters(), signed)
    signatures = {card.account: sign_genesis(genesis, key(card.name)) for card in cards}
    return Founding(combine(genesis, signatures))


class Ledger:
    """Executes one block after the other; `now_ms` is the time of the next."""

    def __init__(self, application: Application, founding: Founding) -> None:
        self.application = application
        self.founding = founding
        self.chain = founding.chain
        self.state = Overlay(NOTHING)
        self.state.apply(seats.genesis_writes(application, founding))
        self.height = 0
        self.now_ms = GENESIS_MS + 1_000
        self.sequence = 0
        self.nonces: dict[bytes, int] = {}

    def signed(
        self,
        sender: SigningKey,
        *operations: Record,
        cosigners: Sequence[SigningKey] = (),
        nonce: int | None = None,
        expires_ms: int | None = None,
    ) -> bytes:
        """A transaction with the sender's next nonce, valid for an hour."""
        if nonce is None:
            nonce = self.nonces[sender.public] = self.nonces.get(sender.public, 0) + 1
        expiry = self.now_ms + HOUR_MS if expires_ms is None else expires_ms
        return sign(self.chain, sender, Nonce(nonce), Millis(expiry), operations, cosigners)

    def batch(self, *transactions: bytes, origin: str = "node") -> tuple[batches.Batch, list[Transaction]]:
        """The next batch of an origin, with every signature checked."""
        self.sequence += 1
        batch = batches.parse_batch(batches.seal(self.chain, key(origin), self.sequence, transactions))
        return batch, batches.check_batch(self.chain, batch)

    def header(self) -> Header:
        return replace(self.founding.header, height=Height(self.height + 1), time_ms=Millis(self.now_ms))

    def effects(self, *transactions: bytes) -> BlockEffects:
        """What a block of one batch would do now."""
        return execute_block(self.application, self.chain, self.header(), [self.batch(*transactions)], self.state)

    def run(self, *transactions: bytes) -> BlockEffects:
        """Commit a block of one batch; a second passes."""
        effects = self.effects(*transactions)
        self.state.apply(effects.writes, effects.memory)
        self.height += 1
        self.now_ms += 1_000
        return effects

    def submit(self, sender: SigningKey, *operations: Record, cosigners: Sequence[SigningKey] = ()) -> Code:
        """One transaction in a block of its own; its code."""
        effects = self.run(self.signed(sender, *operations, cosigners=cosigners))
        assert not effects.alarms, effects.alarms
        return Code(effects.receipts[0].receipt.code)


def codes(effects: BlockEffects) -> list[Code]:
    """The codes of a block's receipts."""
    return [Code(done.receipt.code) for done in effects.receipts]
