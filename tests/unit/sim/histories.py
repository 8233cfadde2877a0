"""Histories of a consortium of four, told to an observer fact by fact, true or forged.

The facts are made with the node's own encoders: the observer must agree with them about every byte.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from p2pledger.chain.batch import seal
from p2pledger.chain.block import Header, StateRoot, transaction_root, unsettled_after
from p2pledger.chain.genesis import Parameters
from p2pledger.chain.receipt import executed
from p2pledger.chain.statement import Claim
from p2pledger.chain.transaction import Transaction, parse, sign
from p2pledger.consensus.journal import EvidenceRecord, ViewRecord, VoteRecord
from p2pledger.consensus.messages import (
    Certificate,
    Commit,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    Signed,
    SignedClaim,
    ViewChange,
    Vote,
    statement,
)
from p2pledger.messages import Agreement, Inquiry, InquiryAnswer, PeerMessage, Status
from p2pledger.primitives.codec import Record, encode
from p2pledger.primitives.crypto import SigningKey, sha256
from p2pledger.primitives.errors import Code
from p2pledger.primitives.ids import (
    U64,
    Bytes32,
    Epoch,
    Height,
    Millis,
    Nonce,
    Signature,
    ValidatorId,
    View,
)
from p2pledger.primitives.merkle import EMPTY_ROOT
from p2pledger.sim.application import Put
from p2pledger.sim.founding import WALL_START_MS, found
from p2pledger.sim.observer import Observer

EPOCH = Epoch(0)


class History:
    """Node i speaks for seat i."""

    def __init__(self, *liars: int, n: int = 4) -> None:
        self.consortium = found(n, Parameters(heartbeat_ms=0))
        self.founding = self.consortium.founding
        self.genesis = self.founding.header
        members = self.founding.validators.members
        by_key: dict[bytes, SigningKey] = {key.public: key for key in self.consortium.consensus}
        self.keys = [by_key[member.id] for member in members]
        self.node_keys = [next(key for key in self.consortium.nodes if key.public == m.node) for m in members]
        self.n = n
        self.now = 0
        self.liars = frozenset(liars)
        validators = [key.public for key in self.keys]
        self.observer = Observer(encode(self.founding.signed), self.founding.chain, validators, self.liars)
        self._sequence = 0
        for node in range(n):
            self.starts(node)

    # Lives

    def starts(self, node: int, headers: Sequence[Header] = (), journal: Sequence[Record] = ()) -> None:
        """A node starts from these blocks and records, asks what it has signed, and is answered."""
        self.observer.started(node, [encode(header) for header in headers], [encode(record) for record in journal])
        if self.founding.validators.q > 1:
            self.asks(node)

    def asks(self, node: int) -> None:
        """P20: an Inquiry, and the answers of all others."""
        serial: U64 = self.now + 1
        self.sends(node, Inquiry(serial))
        for other in range(self.n):
            if other != node:
                self.receives(other, node, encode(InquiryAnswer(serial, ())))

    # The wire

    def sends(self, node: int, message: PeerMessage) -> bytes:
        """To everybody."""
        body = encode(message)
        for other in range(self.n):
            if other != node:
                self.observer.overheard(node, other, body)
        return body

    def receives(self, source: int, target: int, body: bytes) -> None:
        """What was sent arrives."""
        self.now += 1
        self.observer.overheard(source, target, body)
        self.observer.delivered(self.now, source, target, body)

    def signed(self, message: Message, by: int | None = None) -> Signed:
        """Signed by its author, or by somebody else in the author's name."""
        author = next(i for i, key in enumerate(self.keys) if key.public == message.author)
        key = self.keys[author if by is None else by]
        return Signed(message, key.sign(statement(self.founding.chain, message)))

    def says(self, message: Message, via: int | None = None) -> bytes:
        """Journalled, signed and sent, as an honest validator does."""
        author = next(i for i, key in enumerate(self.keys) if key.public == message.author)
        self.observer.wrote(author, encode(VoteRecord(message)))
        return self.sends(author if via is None else via, Agreement(self.signed(message)))

    def utters(self, message: Message) -> bytes:
        """Signed and sent without a trace in any journal, as a liar does."""
        author = next(i for i, key in enumerate(self.keys) if key.public == message.author)
        return self.sends(author, Agreement(self.signed(message)))

    # Statements

    def id(self, seat: int) -> ValidatorId:
        return ValidatorId(self.keys[seat].public)

    def propose(self, header: Header, view: int = 0) -> PrePrepare:
        return PrePrepare(EPOCH, View(view), header, self.id(view % self.n))

    def prepare(self, seat: int, header: Header, view: int = 0) -> Prepare:
        return Prepare(EPOCH, View(view), header.height, header.hash, self.id(seat))

    def commit(self, seat: int, header: Header, view: int = 0) -> Commit:
        return Commit(EPOCH, View(view), header.height, header.hash, self.id(seat))

    def view_change(self, seat: int, view: int, on: Header | None = None, at: int = 0) -> ViewChange:
        """To `view`, with a lock on a block prepared in view `at`."""
        claim = None if on is None else Claim(View(at), on.height, on.hash)
        return ViewChange(EPOCH, View(view), claim, self.id(seat), None, None)

    def new_view(self, changes: Sequence[ViewChange]) -> NewView:
        view = changes[0].view
        quoted = [SignedClaim(change.author, change.claim, self.signed(change).signature) for change in changes]
        ordered = tuple(sorted(quoted, key=lambda each: each.author))
        return NewView(EPOCH, view, ordered, None, (), self.id(view % self.n))

    def certificate(self, header: Header, seats: Sequence[int], view: int = 0) -> Certificate:
        votes = tuple(Vote(seat, self.signed(self.commit(seat, header, view)).signature) for seat in seats)
        return Certificate("commit", EPOCH, View(view), header.height, header.hash, votes)

    def evidence(self, first: Message, second: Message) -> EvidenceRecord:
        return EvidenceRecord(self.signed(first), self.signed(second))

    def view_record(self, view: int) -> ViewRecord:
        return ViewRecord(EPOCH, View(view), True, Height(0), self.genesis.hash, None)

    def status(self, view: int, committed: int) -> Status:
        return Status(EPOCH, View(view), True, Height(committed))

    # Blocks

    def header(self, parent: Header | None = None, variant: int = 0, batches: Sequence[bytes] = ()) -> Header:
        """The next block; its batches must have been stored."""
        parent = parent or self.genesis
        return replace(
            self.genesis,
            height=Height(parent.height + 1),
            parent=parent.hash,
            time_ms=Millis(parent.time_ms + 1 + variant),
            batches=tuple(batches),
            unsettled=unsettled_after(parent, self.founding.parameters.checkpoint_interval),
            executed_height=parent.executed_height,
            effects_roots=(),
            state_roots=(),
        )

    def sealing(self, header: Header, effects: Sequence[Bytes32], state: Bytes32 | None = None) -> Header:
        """A header that lists the effects of the heights before it, and perhaps the state root of the last of them."""
        upto = Height(header.executed_height + len(effects))
        states = () if state is None else (StateRoot(upto, state),)
        return replace(header, executed_height=upto, effects_roots=tuple(effects), state_roots=states)

    def transaction(self, nonce: int = 1, value: bytes = b"x", sender: int = 0) -> Transaction:
        key = self.consortium.accounts[sender]
        until = Millis(WALL_START_MS + 3_600_000)
        return parse(sign(self.founding.chain, key, Nonce(nonce), until, [Put(b"k", value)]))

    def block_of(self, *transactions: Transaction, parent: Header | None = None) -> Header:
        """The next block, with these transactions in one batch that every node has stored."""
        self._sequence += 1
        body = seal(self.founding.chain, self.node_keys[0], self._sequence, [each.data for each in transactions])
        for node in range(self.n):
            self.observer.stored(node, body)
        header = self.header(parent, batches=[sha256(body)])
        root = transaction_root([each.id for each in transactions])
        return replace(header, transaction_root=root, unsettled=header.unsettled + len(transactions))

    def agree(self, header: Header, seats: Sequence[int] = (0, 1, 2), view: int = 0) -> None:
        """The honest way to a block: everybody journals, prepares and commits."""
        self.says(self.propose(header, view))
        for seat in seats:
            self.says(self.prepare(seat, header, view))
        for seat in seats:
            self.says(self.commit(seat, header, view))

    def appends(self, node: int, header: Header, seats: Sequence[int] = (0, 1, 2), view: int = 0) -> None:
        certificate = encode(self.certificate(header, seats, view))
        self.observer.appended(node, [(encode(header), certificate)])

    def commits(self, header: Header, nodes: Sequence[int] = (0, 1, 2, 3)) -> None:
        """Agreed on and appended by all of these."""
        self.agree(header)
        for node in nodes:
            self.appends(node, header)

    def receipt(self, header: Header, transaction: Transaction, index: int = 0, code: Code = Code.OK) -> bytes:
        return encode(executed(header.height, index, transaction.id, code, []))

    def executes(self, node: int, header: Header, receipts: Sequence[bytes] = (), root: bytes = EMPTY_ROOT) -> None:
        self.observer.executed(node, header.height, root, receipts)

    def decides(self, *transactions: Transaction, parent: Header | None = None) -> tuple[Header, list[bytes]]:
        """Submitted, committed and executed everywhere; the block and its receipts."""
        for each in transactions:
            self.observer.submitted(each.data)
        header = self.block_of(*transactions, parent=parent)
        self.commits(header)
        receipts = [self.receipt(header, each, index) for index, each in enumerate(transactions)]
        for node in range(self.n):
            self.executes(node, header, receipts)
        return header, receipts


def forged(signature: Signature) -> Signature:
    """One bit differs."""
    return Signature(bytes([signature[0] ^ 1]) + signature[1:])
