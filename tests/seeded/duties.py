"""What a node makes of others' junk and of others' lies, against plain models (P14, P23).

Which transactions are junk, and whose turn it is to offer evidence, is worked out here from the text of protocol.md.
"""

from collections import Counter
from functools import lru_cache
from random import Random

from msgspec.structs import replace

from p2pledger.chain.batch import Batch, JunkBatch, check_batch, parse_batch, seal
from p2pledger.chain.genesis import Parameters
from p2pledger.chain.receipt import executed
from p2pledger.chain.transaction import Transaction, parse, sign
from p2pledger.consensus.journal import EvidenceRecord
from p2pledger.consensus.messages import Prepare, Signed, statement
from p2pledger.engine.admission import Admission
from p2pledger.engine.agenda import Agenda
from p2pledger.engine.duties import Duties
from p2pledger.engine.events import Note, Now
from p2pledger.engine.evidence import Evidence
from p2pledger.engine.executor import Executor, genesis_flush
from p2pledger.engine.standing import Standing
from p2pledger.execution.execute import NOT_INDEXED, BlockEffects
from p2pledger.gossip import BatchPool
from p2pledger.mempool import Mempool
from p2pledger.primitives import limits
from p2pledger.primitives.errors import Code, InvalidInput
from p2pledger.primitives.ids import BatchId, BlockHash, Height, Millis, NodeId, Nonce, View
from p2pledger.sim.application import Put, RegisterApplication
from p2pledger.sim.founding import WALL_START_MS, seeded_key
from p2pledger.storage.memory import MemoryLedgerStore, MemoryStateStore
from tests.seeded.voices import CONSORTIUM, EPOCH, Voices, noise, require

JUNK = {Code.E_TOO_LARGE, Code.E_UNKNOWN_KIND, Code.E_ALONE, Code.E_UNKNOWN_SENDER}
"""What no correct node seals."""
NOBODYS = {Code.E_FORMAT, Code.E_NONCE}
"""What a client can bring about behind a correct node's back."""
GOOD_PER_STEP = 8
OFFER_MS = 60_000


def run_seed(seed: int, n: int) -> Counter[str]:
    """A court through sixty batches, the desks of all validators through two minutes. Raises InvariantBroken."""
    random = Random(f"duties {seed} {n}")
    voices = Voices(random, n, Parameters(timeout_ms=300))
    shown: Counter[str] = Counter()
    _court(voices, shown)
    _desks(voices, shown)
    return shown


# Junk (P23)


@lru_cache(maxsize=1)
def _transactions() -> list[Transaction]:
    key = seeded_key("sender", 0)
    chain = CONSORTIUM(4, Parameters()).founding.chain
    return [parse(sign(chain, key, Nonce(at), Millis(WALL_START_MS), [Put(b"k", b"v")])) for at in range(1, 401)]


def _court(voices: Voices, shown: Counter[str]) -> None:
    random, origins = voices.random, [NodeId(key.public) for key in voices.consortium.nodes]
    me = origins[0]
    pool = BatchPool(bytes_max=12 * len(origins) * limits.BATCH_BYTES_MAX, origins=len(origins))
    standing = Standing(pool, me, 10_000)
    halvings: Counter[NodeId] = Counter()
    good: Counter[NodeId] = Counter()
    decided: dict[int, NodeId] = {}
    convicted: set[BatchId] = set()
    mood = random.choice([[Code.OK] * 9, [Code.OK, *JUNK], [Code.OK, *JUNK, *NOBODYS, Code.E_NO_CONSENT]])
    severity = random.choice([0.03, 0.2])
    full = 12 * limits.BATCH_BYTES_MAX
    for _ in range(60):
        origin = random.choice(origins[: 3 if len(origins) > 2 else None])
        if random.random() < severity:
            batch = BatchId(bytes([random.randrange(3)]) * 32)
            standing.convict(origin, batch)
            if batch not in convicted:
                convicted.add(batch)
                _halve(halvings, good, origin)
            shown["convicted"] += 1
        else:
            chosen = [(random.choice(_transactions()), random.choice(mood)) for _ in range(random.randint(1, 4))]
            chosen = list({one.id: (one, code) for one, code in chosen}.values())
            useful, junk = _judged(chosen, origin, decided)
            _orders(standing, origin, chosen, decided)
            if origin == me:
                continue
            if 2 * junk > len(chosen):
                shown["junk"] += 1
                _halve(halvings, good, origin)
            elif 2 * useful > len(chosen) and halvings[origin]:
                good[origin] += 1
                if good[origin] == GOOD_PER_STEP:
                    shown["room won back"] += 1
                    good[origin], halvings[origin] = 0, halvings[origin] - 1
        for one in origins:
            due = max(full >> halvings[one], limits.BATCH_BYTES_MAX)
            require(pool.share(one) == due, "P23", f"an origin's share is {pool.share(one)}, it should be {due}")
    _whose_junk(voices)


def _halve(halvings: Counter[NodeId], good: Counter[NodeId], origin: NodeId) -> None:
    good[origin] = 0
    halvings[origin] = min(halvings[origin] + 1, 4)


def _judged(chosen: list[tuple[Transaction, Code]], origin: NodeId, decided: dict[int, NodeId]) -> tuple[int, int]:
    useful = junk = 0
    for transaction, code in chosen:
        through = decided.get(transaction.body.nonce)
        if through is not None:
            junk += through == origin
        elif code in JUNK:
            junk += 1
        elif code not in NOBODYS:
            useful += 1
    return useful, junk


def _orders(
    standing: Standing, origin: NodeId, chosen: list[tuple[Transaction, Code]], decided: dict[int, NodeId]
) -> None:
    fresh = [(one, code) for one, code in chosen if one.body.nonce not in decided]
    receipts = [executed(Height(1), at, one.id, code, ()) for at, (one, code) in enumerate(fresh)]
    keys = [
        NOT_INDEXED if code in {Code.E_UNKNOWN_SENDER, Code.E_NONCE} else (1, one.body.nonce) for one, code in fresh
    ]
    batch = Batch(origin, 1, tuple(one.data for one, _ in chosen), bytes(64))  # type: ignore[arg-type]
    effects = BlockEffects(receipts, keys, {}, [], bytes(32), [])
    standing.judge(Millis(WALL_START_MS), [(batch, [one for one, _ in chosen])], [WALL_START_MS], effects)
    for (one, _), key in zip(fresh, keys, strict=True):
        if key != NOT_INDEXED:
            decided[one.body.nonce] = origin


def _whose_junk(voices: Voices) -> None:
    """Only its own signature makes a bad batch an origin's junk."""
    key = voices.random.choice(voices.consortium.nodes)
    bad = parse_batch(seal(voices.chain, key, 1, [b"no transaction"]))
    forged = Batch(bad.origin, 1, bad.transactions, noise(voices.random))
    for batch, is_its_own in ((bad, True), (forged, False)):
        try:
            check_batch(voices.chain, batch)
        except InvalidInput as error:
            require(isinstance(error, JunkBatch) == is_its_own, "P23", "junk is not that of who signed it")


# Evidence (P14)


class _Desk:
    def __init__(self, voices: Voices, seat: int, executor: Executor, application: RegisterApplication) -> None:
        founding = voices.founding
        nodes = {key.public: key for key in voices.consortium.nodes}
        self.mempool = Mempool()
        self.agenda = Agenda(Now(0, WALL_START_MS))
        self.is_ready = True
        admission = Admission(founding, application, executor, self.mempool)
        key = nodes[founding.validators.members[seat].node]
        duties = Duties(founding, key, executor, admission, self.agenda)
        me = NodeId(key.public)
        self.evidence = Evidence(founding, me, duties, executor, self.agenda, lambda: self.is_ready)

    def wait_until(self, end: int) -> list[tuple[int, str]]:
        """(when, what) it noted on the way."""
        notes = []
        while (due := self.agenda.next()) is not None and due <= end:
            due = max(due, self.agenda.monotonic_ms)
            self.agenda.now = Now(due, WALL_START_MS + due)
            self.agenda.take_due()
            notes += [(due, one.name) for one in self.evidence.offer_due() if isinstance(one, Note)]
        self.agenda.now = Now(end, WALL_START_MS + end)
        return notes


def _pair(voices: Voices, seat: int, variant: int = 0) -> EvidenceRecord:
    keys = {key.public: key for key in voices.consortium.consensus}
    author = voices.ids[seat]
    said = [Prepare(EPOCH, View(variant), Height(5), BlockHash(bytes([at]) * 32), author) for at in range(2)]
    return EvidenceRecord(*(Signed(one, keys[author].sign(statement(voices.chain, one))) for one in said))


def _bring(voices: Voices, seat: int, liar: int, executor: Executor, application: RegisterApplication) -> None:
    """Somebody else's offer is executed first."""
    desk, last = _Desk(voices, seat, executor, application), executor.last
    list(desk.evidence.keep(_pair(voices, liar)))
    desk.wait_until(300 * voices.n)
    key = voices.consortium.nodes[0]
    batch = parse_batch(seal(voices.chain, key, 1, [offer.data for offer in desk.mempool.take(9)]))
    now = Millis(WALL_START_MS + 1)
    header = replace(last, height=Height(last.height + 1), parent=last.hash, time_ms=now)
    executor.apply(header, [(batch, check_batch(voices.chain, batch))])


def _desks(voices: Voices, shown: Counter[str]) -> None:
    """Each in its turn, again when an offer has expired, with a nonce of its own, and one pair of each liar."""
    random, founding = voices.random, voices.founding
    application, state = RegisterApplication(), MemoryStateStore()
    state.flush(genesis_flush(application, founding))
    executor = Executor(founding, application, MemoryLedgerStore(voices.chain, founding.header.hash), state)
    liars = random.sample(range(voices.n), random.randint(1, 2))
    seat = random.randrange(voices.n)
    desk = _Desk(voices, seat, executor, application)
    for liar in liars:
        for variant in range(2):
            writes = list(desk.evidence.keep(_pair(voices, liar, variant)))
            require(len(writes) == (variant == 0), "P14", "one pair of each liar is kept, and is durable")
    behind = random.choice([0, 0, 700])
    desk.is_ready = not behind
    require(not desk.wait_until(behind - 1) or not behind, "P14", "evidence is offered by a node that is behind")
    desk.is_ready = True
    if random.random() < 0.4:
        _bring(voices, (seat + 1) % voices.n, liars.pop(), executor, application)
        shown["known already"] += 1
    again = OFFER_MS + founding.parameters.drift_ms
    end = again + 2_500
    offered = [when for when, what in desk.wait_until(end) if what == "evidence_offered"]
    turns = [300 * ((seat - liar - 1) % voices.n) for liar in liars]
    if not behind:
        due = sorted(when for turn in turns for when in (turn, turn + again) if when <= end)
        require(offered == due, "P14", f"evidence is offered at {offered}, the turns were {due}")
        shown["turns"] += 1
    nonces = [one.body.nonce for one in desk.mempool.take(100)]
    require(len(set(nonces)) == len(nonces) == len(offered), "P14", f"the offers take the nonces {nonces}")
    shown["offers"] += len(nonces)
    shown["behind"] += behind > 0
