"""Blocks, batches and synced ranges, right or with one thing wrong, and what waits for them (P3, P21, P22, P23).

What may stand in a block is worked out here from sets of numbers; roots, hashes and signatures are really made.
"""

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from random import Random

from msgspec.structs import replace

from p2pledger.chain.batch import Batch, batch_id, check_batch, parse_batch, seal
from p2pledger.chain.block import Header, transaction_root, unsettled_after
from p2pledger.chain.genesis import Parameters
from p2pledger.chain.transaction import Transaction, parse, sign
from p2pledger.consensus.messages import Certificate, Vote, ballot_statement
from p2pledger.engine.executor import Executor, genesis_flush
from p2pledger.engine.proposals import OriginWindows, Verdict, judge, select
from p2pledger.execution.windows import WINDOW, Window
from p2pledger.gossip import BatchPool, PooledBatch
from p2pledger.messages import RangeReply, SyncBlock
from p2pledger.primitives import limits
from p2pledger.primitives.crypto import SigningKey, sha256
from p2pledger.primitives.errors import InvalidInput
from p2pledger.primitives.ids import BatchId, BlockHash, ChainId, Height, Millis, NodeId, Nonce, Signature
from p2pledger.sim.application import Put, RegisterApplication
from p2pledger.sim.core.host import block_on
from p2pledger.sim.founding import WALL_START_MS
from p2pledger.storage.memory import MemoryLedgerStore, MemoryStateStore
from p2pledger.sync import Syncer, check_range
from tests.seeded.voices import EPOCH, Voices, noise, require

NOW = WALL_START_MS
BLOCKS = 12


def run_seed(seed: int, n: int) -> Counter[str]:
    """A dozen blocks, one batch, one range, one pool, one search for a peer. Raises InvariantBroken."""
    random = Random(f"blocks {seed} {n}")
    voices = Voices(random, n, Parameters(window=random.choice([1, 2, 4, 8]), drift_ms=random.choice([500, 5_000])))
    shown: Counter[str] = Counter()
    for _ in range(BLOCKS):
        _block(voices, shown)
    _selection(voices)
    _batch(voices, shown)
    _range(voices, shown)
    _peers(voices, shown)
    _shares(voices, shown)
    return shown


@lru_cache(maxsize=32)
def _transactions(chain: ChainId, key: SigningKey) -> list[Transaction]:
    return [parse(sign(chain, key, Nonce(nonce), Millis(NOW + 60_000), [Put(b"k", b"v")])) for nonce in range(1, 7)]


def _executor(voices: Voices) -> Executor:
    state = MemoryStateStore()
    state.flush(genesis_flush(RegisterApplication(), voices.founding))
    ledger = MemoryLedgerStore(voices.chain, voices.founding.header.hash)
    return Executor(voices.founding, RegisterApplication(), ledger, state)


# Which numbers may stand (P3)


class _Numbers:
    """Of each origin the sequence numbers in the chain, all of them."""

    def __init__(self) -> None:
        self.used: dict[NodeId, set[int]] = {}

    def may_follow(self, origin: NodeId, number: int) -> bool:
        used = self.used.get(origin, set())
        highest = max(used, default=0)
        return number >= 1 and number not in used and highest - WINDOW < number <= highest + WINDOW

    def use(self, origin: NodeId, number: int) -> None:
        self.used.setdefault(origin, set()).add(number)

    def windows(self) -> OriginWindows:
        """The same as the part under test keeps it."""
        windows = {}
        for origin, used in self.used.items():
            highest = max(used)
            holes = [i for i in range(min(WINDOW, highest)) if highest - i not in used]
            windows[origin] = Window(highest, sum(1 << i for i in holes))
        return OriginWindows(windows)


def _history(voices: Voices) -> _Numbers:
    numbers = _Numbers()
    for key in voices.consortium.nodes:
        origin = NodeId(key.public)
        for number in voices.random.sample(range(1, 9), voices.random.randrange(5)):
            numbers.use(origin, number)
    return numbers


def _batches(voices: Voices, numbers: _Numbers) -> list[tuple[Batch, list[Transaction]]]:
    """Some of them possible at the start of the block only, or never."""
    random = voices.random
    bodies = []
    for place in range(random.randrange(5)):
        seat = random.randrange(voices.n)
        origin = NodeId(voices.consortium.nodes[seat].public)
        highest = max(numbers.used.get(origin, {0}))
        number = random.choice([random.randint(1, 10), highest + 1 + place, highest + WINDOW, highest + WINDOW + 1])
        transactions = _transactions(voices.chain, voices.consortium.accounts[seat])
        chosen = random.sample(transactions, random.randint(1, 2))
        bodies.append((Batch(origin, number, tuple(one.data for one in chosen), noise(random)), chosen))
    return bodies


# Blocks (P3)


def _block(voices: Voices, shown: Counter[str]) -> None:
    random, founding = voices.random, voices.founding
    numbers = _history(voices)
    bodies = _batches(voices, numbers)
    if random.random() < 0.6:
        bodies = [body for body in bodies if numbers.may_follow(body[0].origin, body[0].sequence)][:1]
    window = founding.parameters.window
    parent = _parent(voices, random.randrange(window if random.random() < 0.8 else window + 2))
    header = _header(voices, parent, bodies)
    drift = founding.parameters.drift_ms
    wall = header.time_ms + random.choice([0, drift, -drift, drift + 1, -drift - 1, 2 * drift, -2 * drift])
    flaw, header = random.choice(list(_flawed(header)))
    is_bad = flaw != "" or not _is_ordered(numbers, bodies) or not header.height - window <= 0
    is_bad = is_bad or header.time_ms < max(parent.time_ms + 1, wall - drift)
    is_early = header.time_ms > wall + drift
    due = Verdict.BAD if is_bad else Verdict.WAIT if is_early else Verdict.GOOD
    verdict = judge(header, parent, bodies, numbers.windows(), _executor(voices), founding, wall).verdict
    shown[due.name] += 1
    shown[f"flaw {flaw}"] += 1
    what = f"{flaw}, {wall - header.time_ms} ms, height {header.height} of a window of {window}"
    may_wait_first = is_early and verdict is Verdict.WAIT
    require(verdict is due or may_wait_first, "P3", f"a block is {verdict.name} that is {due.name}: {what}")


def _is_ordered(numbers: _Numbers, bodies: list[tuple[Batch, list[Transaction]]]) -> bool:
    """One by one, each moving the window on."""
    seen = _Numbers()
    seen.used = {origin: set(used) for origin, used in numbers.used.items()}
    for batch, _ in bodies:
        if not seen.may_follow(batch.origin, batch.sequence):
            return False
        seen.use(batch.origin, batch.sequence)
    return True


def _parent(voices: Voices, height: int) -> Header:
    header = voices.founding.header
    for at in range(height):
        header = block_on(header, at, b"parent")
    return header


def _header(voices: Voices, parent: Header, bodies: list[tuple[Batch, list[Transaction]]]) -> Header:
    ids = [transaction.id for _, chosen in bodies for transaction in chosen]
    return replace(
        parent,
        height=Height(parent.height + 1),
        parent=parent.hash,
        time_ms=Millis(parent.time_ms + voices.random.choice([1, 1_000, 60_000])),
        batches=tuple(BatchId(sha256(b"batch %d" % at)) for at in range(len(bodies))),
        transaction_root=transaction_root(ids),
        unsettled=unsettled_after(parent, voices.founding.parameters.checkpoint_interval) + len(ids),
        effects_roots=(),
        state_roots=(),
    )


def _flawed(header: Header) -> Iterator[tuple[str, Header]]:
    for _ in range(8):
        yield "", header
    yield "transaction root", replace(header, transaction_root=bytes(32))
    yield "transactions since the checkpoint", replace(header, unsettled=header.unsettled + 1)
    yield "effects roots", replace(header, effects_roots=(bytes(32),))
    yield "executed height", replace(header, executed_height=header.height)
    yield "time of its parent", replace(header, time_ms=Millis(0))
    yield "parent", replace(header, parent=BlockHash(bytes(32)))
    yield "validators", replace(header, validators_hash=bytes(32))
    yield "version", replace(header, version=2)


def _selection(voices: Voices) -> None:
    """P1: what is chosen for a block is what everybody will find in order."""
    numbers = _history(voices)
    pool = BatchPool()
    for batch, transactions in _batches(voices, numbers):
        pool.add(PooledBatch(BatchId(voices.random.randbytes(32)), batch, transactions, b"", 0))
    chosen = [(pooled.batch, pooled.transactions) for pooled in select(pool, numbers.windows()).batches]
    require(_is_ordered(numbers, chosen), "P1", "a proposal that nobody can find good")


# Batches (P3)


def _batch(voices: Voices, shown: Counter[str]) -> None:
    random = voices.random
    seat = random.randrange(voices.n)
    origin = voices.consortium.nodes[seat]
    good = [one.data for one in _transactions(voices.chain, voices.consortium.accounts[seat])[:3]]
    batch = parse_batch(seal(voices.chain, origin, random.randint(1, 9), good))
    require(len(check_batch(voices.chain, batch)) == 3, "P3", "a good batch is refused")
    spoilt = bytearray(good[random.randrange(3)])
    spoilt[-1 - random.randrange(60)] ^= 1 << random.randrange(8)  # in its signature
    forged = parse_batch(seal(voices.chain, origin, 1, [*good[:2], bytes(spoilt)]))
    stolen = replace(batch, signature=Signature(random.randbytes(64)))
    for how, bad in (("with a badly signed transaction", forged), ("that its origin did not sign", stolen)):
        try:
            check_batch(voices.chain, bad)
        except InvalidInput:
            shown[f"batch refused {how}"] += 1
            continue
        require(False, "P3", f"a batch counts {how}")


# Ranges (P21)


def _range(voices: Voices, shown: Counter[str]) -> None:
    random = voices.random
    blocks, parent = [], voices.founding.header
    for at in range(random.randint(2, 4)):
        key = random.choice(voices.consortium.nodes)
        bodies = [_sealed(voices.chain, key, number) for number in range(1, 1 + random.randrange(3))]
        parent = replace(block_on(parent, at, b"range"), batches=tuple(batch_id(body) for body in bodies))
        blocks.append(SyncBlock(parent, tuple(bodies)))
    split = random.randint(1, len(blocks))
    tail = tuple(block.header for block in blocks[split:])
    good = RangeReply(tuple(blocks[:split]), tail, _really_certified(voices, parent))
    fault = _fault(voices, good)
    require(not fault, "P21", f"a good range is refused: {fault}")
    how, spoilt = random.choice(list(_spoilt_ranges(voices, good)))
    require(bool(_fault(voices, spoilt)), "P21", f"a range is taken {how}")
    shown[f"range refused {how}"] += 1


@lru_cache(maxsize=256)
def _sealed(chain: ChainId, key: SigningKey, number: int) -> bytes:
    return seal(chain, key, number, [b"transaction"])


def _fault(voices: Voices, reply: RangeReply) -> str:
    try:
        check_range(reply, voices.founding.header, voices.chain, voices.founding.validators)
    except InvalidInput as fault:
        return str(fault)
    return ""


def _really_certified(voices: Voices, header: Header, kind: str = "commit") -> Certificate:
    bare = Certificate(kind, EPOCH, voices.branch(0)[0].epoch, header.height, header.hash, ())  # type: ignore[arg-type]
    keys = {key.public: key for key in voices.consortium.consensus}
    votes = [
        Vote(seat, keys[voices.ids[seat]].sign(ballot_statement(voices.chain, bare, voices.ids[seat])))
        for seat in voices.seats(voices.q)
    ]
    return replace(bare, votes=tuple(votes))


def _spoilt_ranges(voices: Voices, good: RangeReply) -> Iterator[tuple[str, RangeReply]]:
    *front, last = good.blocks
    stray = block_on(block_on(voices.founding.header, 77, b"stray"), 78, b"stray")
    for offset in range(len(front)):  # blocks of the right height that hang on another parent
        header = replace(front[offset].header, parent=BlockHash(bytes(32)))
        moved = (*front[:offset], replace(front[offset], header=header), *front[offset + 1 :], last)
        yield "that does not hang together", replace(good, blocks=moved)
    orphan = replace(last.header, parent=stray.hash)
    alone = RangeReply((*front, replace(last, header=orphan)), (), _really_certified(voices, orphan))
    yield "that does not continue our chain", alone
    foreign = tuple(_sealed(voices.chain, voices.consortium.nodes[0], 99) for _ in last.bodies)
    if foreign:
        yield "with other bodies", replace(good, blocks=(*front, replace(last, bodies=foreign)))
    end = (good.tail or (last.header,))[-1]
    yield "that was only prepared", replace(good, certificate=_really_certified(voices, end, "prepare"))
    yield "certified by nobody", replace(good, certificate=_forged(voices, good.certificate))
    yield "whose certificate is of another block", replace(good, certificate=_really_certified(voices, stray))


def _forged(voices: Voices, certificate: Certificate) -> Certificate:
    return replace(
        certificate, votes=tuple(replace(vote, signature=noise(voices.random)) for vote in certificate.votes)
    )


# Peers and shares (P21, P23)


def _peers(voices: Voices, shown: Counter[str]) -> None:
    """Who sent what does not verify comes after all who did so less often."""
    random, syncer = voices.random, Syncer()
    links = [NodeId(key.public) for key in voices.consortium.nodes]
    liars = set(random.sample(links, voices.f or 1)) if len(links) > 1 else set()
    faults: Counter[NodeId] = Counter()
    header = voices.branch(0)[0]
    for step in range(20):
        syncer.aim(voices.certificate("commit", 0, header))
        asked = syncer.next_peer(links, step)
        require(asked in links, "P21", "nobody is asked for the blocks that are missing")
        assert asked is not None
        fewest = min(faults[link] for link in links)
        require(faults[asked] == fewest, "P21", f"a peer with {faults[asked]} faults is asked, others have {fewest}")
        if asked in liars:
            shown["sync from a liar"] += 1
            faults[asked] += 1
            syncer.fault(asked)
        else:
            syncer.reached(header.height)


def _shares(voices: Voices, shown: Counter[str]) -> None:
    """An origin within its share finds room whatever the others send."""
    random, n = voices.random, voices.n
    pool = BatchPool(bytes_max=2 * n * limits.BATCH_BYTES_MAX, origins=n)
    origins = [NodeId(key.public) for key in voices.consortium.nodes]
    share, largest = 2 * limits.BATCH_BYTES_MAX, limits.BATCH_BYTES_MAX
    held: Counter[NodeId] = Counter()
    greedy = random.choice(origins)
    for number in range(6 * n):
        origin = greedy if random.random() < 0.7 else random.choice(origins)
        data = _Sized(random.randint(largest // 4, largest))
        pooled = PooledBatch(BatchId(random.randbytes(32)), Batch(origin, number + 1, (), noise(random)), [], data, 0)
        has_room = held[origin] + largest <= share
        shown[f"room {has_room}"] += 1
        require(pool.add(pooled) == has_room, "P23", f"{held[origin]} bytes of one origin, its share is {share}")
        held[origin] += len(data) if has_room else 0


class _Sized(bytes):
    """Bytes of which only the length matters."""

    def __new__(cls, size: int) -> "_Sized":
        made = super().__new__(cls)
        made.size = size
        return made

    size: int

    def __len__(self) -> int:
        return self.size
