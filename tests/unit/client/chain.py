"""A committed chain in memory, with headers, certificates and state proofs, as an honest node would serve it."""

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from p2pledger.chain.block import Header, StateRoot
from p2pledger.chain.receipt import Executed, ReceiptProof
from p2pledger.consensus.anchor import Anchor, ReceiptEvidence
from p2pledger.consensus.certificates import build_certificate
from p2pledger.consensus.messages import Certificate, ballot_statement
from p2pledger.execution import seats
from p2pledger.execution.execute import BlockEffects
from p2pledger.health import queries
from p2pledger.health.log import decode_line
from p2pledger.network.api import LineReply, LogReply, StateReply
from p2pledger.primitives import merkle
from p2pledger.primitives.ids import Epoch, Height, View
from p2pledger.state import tree
from tests.unit.execution.ledger import key
from tests.unit.health.world import World

SEATS = ("Berg", "Tal", "See", "Wald")


class Chain(World):
    """The people of `World`, and every height a checkpoint whose root stands in the next header."""

    def __init__(self) -> None:
        self.headers: list[Header] = []
        self.effects_at: dict[int, list[bytes]] = {}
        self.receipts: dict[tuple[bytes, int], Executed] = {}
        self.on_block: list[Callable[[], None]] = []
        """Called after every block."""
        self._tree: dict[bytes, bytes] = {}
        super().__init__()

    def header(self) -> Header:
        parent = self.headers[-1] if self.headers else self.founding.header
        done = self.height
        return replace(
            super().header(),
            parent=parent.hash,
            executed_height=Height(done),
            effects_roots=(merkle.root_of_hashes(self.effects_at[done]),) if done else (),
            state_roots=(StateRoot(Height(done), tree.root(self._tree.get)),) if done else (),
        )

    def run(self, *transactions: bytes) -> BlockEffects:
        if not self._tree:
            self._grow(seats.genesis_writes(self.application, self.founding))
        self.headers.append(self.header())
        effects = super().run(*transactions)
        self._grow(effects.writes)
        self.effects_at[self.height] = effects.leaves
        for executed, (number, nonce) in zip(effects.receipts, effects.receipt_keys, strict=True):
            if number:
                self.receipts[self._sender(executed, transactions), nonce] = executed
        self._told()
        return effects

    def tick(self) -> None:
        """An empty block: the one before it can now be proven."""
        self.headers.append(self.header())
        self.height += 1
        self.now_ms += 1_000
        self.effects_at[self.height] = []
        self._told()

    def _told(self) -> None:
        for callback in self.on_block:
            callback()

    def _sender(self, executed: Executed, transactions: tuple[bytes, ...]) -> bytes:
        _, parsed = self.batch(*transactions)
        return next(item.body.sender for item in parsed if item.id == executed.receipt.transaction)

    def _grow(self, writes: Any) -> None:
        for name, value in tree.update(self._tree.get, writes)[1].items():
            if value is None:
                self._tree.pop(name, None)
            else:
                self._tree[name] = value

    # What a node's feed reads

    @property
    def executed(self) -> Height:
        return Height(self.height)

    def tip(self) -> Height:
        return Height(self.height)

    def receipts_at(self, height: int) -> list[Executed]:
        found = [one for one in self.receipts.values() if one.receipt.height == height]
        return sorted(found, key=lambda one: one.receipt.index)

    def sealed(self, height: int) -> Anchor | None:
        """What proves the receipts of a height, once there is a header after it."""
        return self.anchor(height + 1) if height < self.height else None

    # What a node answers

    def certificate(
        self, header: Header, signers: tuple[str, ...] = SEATS, prefix: str = "validator of"
    ) -> Certificate:
        """A commit certificate with the signatures of the lowest q seats."""
        empty = Certificate("commit", Epoch(0), View(0), header.height, header.hash, ())
        keys = [key(f"{prefix} {name}") for name in signers]
        signatures = {k.public: k.sign(ballot_statement(self.chain, empty, k.public)) for k in keys}
        validators = self.founding.validators
        return build_certificate("commit", (Epoch(0), View(0), header.height), header.hash, signatures, validators)

    def anchor(self, height: int) -> Anchor:
        """The header of a height and, where there is one, the next, whose certificate commits both."""
        headers = tuple(self.headers[height - 1 : height + 1])
        return Anchor(headers, self.certificate(headers[-1]))

    def evidence(self, executed: Executed) -> ReceiptEvidence:
        leaves = self.effects_at[executed.receipt.height]
        path = merkle.inclusion_path(leaves, executed.receipt.index)
        proof = ReceiptProof(len(leaves), path)
        return ReceiptEvidence(executed, proof, self.anchor(executed.receipt.height + 1))

    def state_reply(self, name: bytes) -> StateReply:
        """Of the last but one height, whose state root the tip carries; the state must not have changed since."""
        proof = tree.prove(self._tree.get, name)
        return StateReply(0, Height(self.height - 1), self.state.get(name), proof, self.anchor(self.height))

    def line_reply(self, pid: bytes, sequence: int) -> LineReply:
        """A line with its receipt; call it after `tick`."""
        data = queries.log_line(pid, sequence, self.state)
        assert data is not None
        executed = next(
            one for one in self.receipts.values() if one.receipt.transaction == decode_line(data).transaction
        )
        return LineReply(0, data, self.evidence(executed))

    def log_reply(self, pid: bytes, first: int = 1, bytes_max: int = 2**30, first_release: int = 1) -> LogReply:
        """The log up to the last but one height, from a line and a report on; call it after `tick`."""
        proven = self.state_reply(queries.log_head_key(pid))
        lines = queries.log_page(pid, self.state, first, bytes_max)
        is_last = first - 1 + len(lines) >= queries.log_head(pid, self.state).count
        room = bytes_max - sum(map(len, lines)) if is_last else 0
        releases = queries.release_page(pid, self.state, first_release, room) if room > 0 else ()
        return LogReply(0, pid, proven.height, lines, proven.value, proven.proof, proven.anchor, (), releases)
