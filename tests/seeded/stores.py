"""A ledger store and a sign floor through random writes, against a model that remembers everything (P2, P16b, P19)."""

import tempfile
from collections import Counter
from pathlib import Path
from random import Random

from msgspec.structs import replace

from p2pledger.chain.batch import batch_id
from p2pledger.chain.block import Header
from p2pledger.consensus.journal import BlockRecord, CommittedRecord, VoteRecord
from p2pledger.consensus.messages import Commit, Message, Prepare
from p2pledger.engine.ports import AppendBlock, LedgerWrite, PutBody, PutJournal
from p2pledger.primitives.errors import ConfigError, StoreError
from p2pledger.primitives.ids import BatchId, BlockHash, Height, View
from p2pledger.sim.core.host import block_on
from p2pledger.storage.memory import MemoryLedgerStore
from p2pledger.storage.sign_floor import SignFloor
from tests.seeded.voices import EPOCH, Voices, require

STEPS = 40


def run_seed(seed: int, n: int) -> Counter[str]:
    """One life of a store, one of a key. Raises InvariantBroken."""
    random = Random(f"stores {seed} {n}")
    voices = Voices(random, n)
    shown: Counter[str] = Counter()
    _Life(voices, shown).go()
    _floor(voices, shown)
    return shown


class _Life:
    """Votes, blocks with their bodies, commits, crashes."""

    def __init__(self, voices: Voices, shown: Counter[str]) -> None:
        self.voices, self.random, self.shown = voices, voices.random, shown
        self.store = MemoryLedgerStore(voices.chain, voices.founding.header.hash)
        self.said: dict[tuple[type[Message], int, int], BlockHash] = {}
        self.open: dict[BlockHash, Header] = {}
        """Journalled blocks above the tip."""
        self.tip = voices.founding.header
        self.bodies: dict[BatchId, bytes] = {}

    def go(self) -> None:
        for _ in range(STEPS):
            self.random.choice([self.vote, self.vote, self.block, self.commit, self.crash])()
            self.check()

    def vote(self) -> None:
        """P19: a vote that contradicts the journal is refused by the store itself."""
        kind, view = self.random.choice([Prepare, Commit]), View(self.random.randrange(2))
        height = Height(self.tip.height + self.random.randint(1, 2))
        block = BlockHash(bytes([self.random.randrange(2)]) * 32)
        contradicts = self.said.get((kind, view, height), block) != block
        vote = kind(EPOCH, view, height, block, self.voices.ids[0])
        refused = not self._takes([PutJournal(VoteRecord(vote))])
        self.shown["contradicting vote"] += contradicts
        require(refused == contradicts, "P19", f"a vote that contradicts: {contradicts}, is refused: {refused}")
        if not refused:
            self.said[kind, view, height] = block

    def block(self) -> None:
        """P16b: a block is journalled with its bodies; rivals may share some."""
        parents = [self.tip, *self.open.values()]
        parent = self.random.choice(parents)
        if parent.height > self.tip.height + 3:
            return
        fresh = [self.random.randbytes(8) for _ in range(self.random.randrange(3))]
        shared = self.random.sample(sorted(self.bodies), min(len(self.bodies), self.random.randrange(2)))
        bodies = {batch_id(body): body for body in fresh}
        batches = (*bodies, *(one for one in shared if one not in bodies))
        salt = self.random.randbytes(8)
        header = replace(block_on(parent, 0, salt), batches=batches)
        writes: list[LedgerWrite] = [PutBody(batch, bodies.get(batch) or self.bodies[batch]) for batch in batches]
        require(self._takes([*writes, PutJournal(BlockRecord(header))]), "P16b", "a block is not journalled")
        self.bodies |= bodies
        self.open[header.hash] = header

    def commit(self) -> None:
        """A journalled block that stands on the tip."""
        following = [header for header in self.open.values() if header.parent == self.tip.hash]
        if not following:
            return
        header = self.random.choice(following)
        require(self._takes([AppendBlock(CommittedRecord(header, None))]), "P16b", "a block cannot be committed")
        self.tip = header
        self.open = {key: one for key, one in self.open.items() if one.height > header.height}
        self.said = {at: block for at, block in self.said.items() if at[2] > header.height}
        wanted = {batch for one in self.open.values() for batch in one.batches}
        self.bodies = {batch: body for batch, body in self.bodies.items() if batch in wanted}
        self.shown["commit"] += 1

    def crash(self) -> None:
        self.store = self.store.reopened()

    def check(self) -> None:
        """What was journalled is there: each vote, each open block, each body of one (P16b, P19)."""
        require(self.store.tip() == self.tip.height, "P19", "the store has another tip")
        records = self.store.journal()
        votes = {_place(record.message): record.message for record in records if isinstance(record, VoteRecord)}
        require(set(votes) == set(self.said), "P19", "votes above the tip are missing from the journal")
        blocks = {record.header.hash for record in records if isinstance(record, BlockRecord)}
        require(blocks == set(self.open), "P16b", "the journalled blocks are others")
        for header in self.open.values():
            for batch in header.batches:
                require(self.store.has_body(batch), "P16b", f"the body of an open block {header.height} is gone")
                self.shown["body of an open block"] += 1

    def _takes(self, writes: list[LedgerWrite]) -> bool:
        try:
            self.store.apply(writes)
        except StoreError:
            return False
        return True


def _place(message: Message) -> tuple[type[Message], int, int]:
    assert isinstance(message, Prepare | Commit)
    return type(message), message.view, message.height


def _floor(voices: Voices, shown: Counter[str]) -> None:
    """P19: a journal that lies below what the key has reached, or is another one, is refused."""
    random = voices.random
    with tempfile.TemporaryDirectory() as folder:
        floor = SignFloor(Path(folder) / "floor")
        identity = random.randbytes(16)
        floor.adopt(identity, Height(0))
        reached = 0
        for _ in range(3):
            height = random.randrange(20)
            floor.raise_to(Height(height), View(0))
            reached = max(reached, height)
            tip, is_other = random.randrange(25), random.random() < 0.2
            is_due = tip < reached or is_other
            try:
                floor.check(random.randbytes(16) if is_other else identity, Height(tip))
                is_refused = False
            except ConfigError:
                is_refused = True
            shown[f"journal refused {is_due}"] += 1
            require(is_refused == is_due, "P19", f"a journal at {tip} is refused: {is_refused}, had reached {reached}")
            floor = SignFloor(Path(folder) / "floor")
