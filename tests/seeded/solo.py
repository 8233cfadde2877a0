"""One real replica among voices: all others say what a story has them say, late, twice, in part or not at all.

The story keeps to the rules, so that nothing which at most f liars cannot bring about ever happens: what has COMMITs is
carried into every later view. Within that it goes where clusters seldom go: primaries show two blocks or two NEW-VIEWs,
propose below their tip, hide the bodies of what is certified, leave stale tips behind; the replica dies between any
write and its words, forgets its disk, or has a second copy. `witness` judges each turn.
"""

from collections import Counter
from collections.abc import Iterable
from random import Random

from p2pledger.chain.genesis import Parameters
from p2pledger.consensus import effects as do
from p2pledger.consensus import events as on
from p2pledger.consensus.bounds import is_wanted
from p2pledger.consensus.journal import CommittedRecord
from p2pledger.consensus.messages import Message, Prepare, Signed
from p2pledger.consensus.recovery import restore
from p2pledger.consensus.replica import Replica
from p2pledger.consensus.verification import verify_message
from p2pledger.engine.ports import AppendBlock, LedgerWrite, PutJournal
from p2pledger.primitives.ids import BlockHash, Height, ValidatorId, View
from p2pledger.sim.core.host import block_on
from p2pledger.sim.observer import InvariantBroken
from p2pledger.storage.memory import MemoryLedgerStore
from tests.seeded.story import Story
from tests.seeded.voices import EPOCH, Voices, require
from tests.seeded.witness import Witness

STEPS = 160


def run_seed(seed: int, n: int) -> Counter[str]:
    """One replica's life; what was reached. Raises InvariantBroken."""
    random = Random(f"solo {seed} {n}")
    parameters = Parameters(
        window=random.choice([1, 2, 4, 8]), term_heights=random.choice([3, 7, 10_000]), timeout_ms=300
    )
    solo = Solo(Voices(random, n, parameters))
    try:
        solo.live()
    except InvariantBroken:
        raise
    except AssertionError as error:
        raise InvariantBroken(f"12: AssertionError: {error}") from error
    return solo.witness.reached


class _Crash(Exception):
    pass


class Solo:
    """The replica, its disk, and everything around it that is neither voice nor rule."""

    def __init__(self, voices: Voices) -> None:
        self.voices, self.random = voices, voices.random
        self.me = self.random.randrange(voices.n)
        self.id: ValidatorId = voices.ids[self.me]
        self.story = Story(voices, self.me)
        self.store = MemoryLedgerStore(voices.chain, voices.founding.header.hash)
        self.crashing = self.random.choice([0.0, 0.0, 0.01, 0.04])
        self.hiding = self.random.choice([0.0, 0.2, 0.5])
        """How much of what is asked for does not come at once."""
        self.disorder = self.random.choice([1, 6, 40])
        """Among so many messages on their way any may be the next."""
        self.forgets_disk = self.random.random() < 0.15
        self.has_second_copy = self.random.random() < 0.25
        self.pending: list[on.Event] = []
        self.syncs: list[do.SyncBlocks] = []
        self.timers: dict[str, int] = {}
        self.fired: list[on.TimerFired] = []
        self.has_work = False
        self.replica = Replica(voices.founding, self.id)
        self.witness = Witness(self)
        self._begin()

    # Life

    def _begin(self) -> None:
        self.pending, self.syncs, self.timers, self.fired = [], [], {}, []
        self.replica = Replica(self.voices.founding, self.id)
        tip = self.store.tip()
        restore(self.replica, self.store.journal(), self.store.block(tip) if tip else None)
        self.witness.started(is_empty=not self.store.journal() and not tip)
        self._guarded(self.replica.start())
        self.happens(on.WorkChanged(self.has_work))

    def live(self) -> None:
        for _ in range(STEPS):
            if self.witness.is_over:
                return
            self.random.choices(self._deeds(), [8, 6, 3, 2, 1, 1, 1, 2, 1, 1.5])[0]()
        if self.random.random() < 0.3:
            self._meet_a_fork()

    def _deeds(self) -> list:  # type: ignore[type-arg]
        return [
            self._deliver,
            self.story.goes_on,
            self._answer,
            self._ask_status,
            self._fire,
            self._turn_work,
            self._complain,
            self._tell_inquiry,
            self._rarely,
            self._hand_certificate,
        ]

    def crash(self) -> None:
        """Only what the store was given remains, and not even that on a disk that is lost."""
        self.witness.reached["crash"] += 1
        self.store = self.store.reopened()
        if self.forgets_disk and self.random.random() < 0.3:
            self.forgets_disk = False
            self.witness.forgot()
            self.store = MemoryLedgerStore(self.voices.chain, self.voices.founding.header.hash)
        self._begin()

    # What happens to it

    def _deliver(self) -> None:
        queue = self.story.queue
        if queue:
            signed = queue.pop(self.random.randrange(min(len(queue), self.disorder)))
            if self.random.random() < 0.1:
                queue.append(signed)
            self.hears(signed)

    def hears(self, signed: Signed) -> None:
        """If it wants it at all (P23), through the real door."""
        if is_wanted(self.replica, signed):
            founding = self.voices.founding
            verified = verify_message(signed, founding.chain, EPOCH, founding.validators, self.voices.signatures.verify)
            self.happens(on.Received(verified))

    def happens(self, event: on.Event) -> None:
        """One turn: what the replica asks for, and what follows from that."""
        self.witness.before(event)
        self._guarded(self.replica.handle(event), event)

    def _guarded(self, effects: list[do.Effect], event: on.Event | None = None) -> None:
        try:
            self._perform(effects)
        except _Crash:
            self.crash()
            return
        self.witness.after(event)

    def _answer(self) -> None:
        """Something that was asked for comes, or blocks are synced."""
        if self.syncs:
            self._sync(self.syncs.pop())
        elif self.pending:
            self.happens(self.pending.pop(self.random.randrange(len(self.pending))))

    def _ask_status(self) -> None:
        view = View(max(0, self.replica.view - self.random.choice([0, 0, 0, 1])))
        height = Height(max(0, self.replica.committed - self.random.choice([0, 0, 1])))
        who = self.random.choice(self.story.puppets)
        self.happens(on.PeerStatus(self.voices.ids[who], EPOCH, view, self.random.random() < 0.7, height))

    def _fire(self) -> None:
        if self.fired and self.random.random() < 0.3:
            self.happens(self.random.choice(self.fired))  # a stale one, perhaps
        elif self.timers:
            name = self.random.choice(sorted(self.timers))
            self.fired.append(on.TimerFired(name, self.timers.pop(name)))  # type: ignore[arg-type]
            self.happens(self.fired[-1])

    def _turn_work(self) -> None:
        self.has_work = not self.has_work
        self.happens(on.WorkChanged(self.has_work))

    def _complain(self) -> None:
        if self.random.random() < 0.3:
            self.happens(on.PrimaryUnfair(View(max(0, self.replica.view - self.random.choice([0, 1])))))

    def _tell_inquiry(self) -> None:
        """P20: a voice says what it holds of ours."""
        if self.replica.recovery.is_waiting:
            who = self.random.choice(self.story.puppets)
            held = [self.voices.said(said) for said in self.witness.told[-3:]]
            self.happens(on.InquiryAnswered(self.voices.ids[who], tuple(on.Verified(signed) for signed in held)))

    def _rarely(self) -> None:
        if self.random.random() < self.crashing * 10:
            self.crash()
        elif self.has_second_copy and self.random.random() < 0.2:
            self.has_second_copy = False
            height = Height(self.replica.committed + 1)
            block = BlockHash(b"second copy".ljust(32))
            copy = Prepare(EPOCH, View(self.replica.view + self.random.randrange(2)), height, block, self.id)
            self.hears(self.voices.said(copy))
        else:
            stranger = Prepare(EPOCH, self.replica.view, Height(1), BlockHash(bytes(32)), ValidatorId(bytes(32)))
            signed = Signed(stranger, self.voices.said(self._of(self.me, stranger)).signature)
            require(not is_wanted(self.replica, signed), "P23", "what a stranger says is verified")

    def _of(self, seat: int, vote: Prepare) -> Prepare:
        return Prepare(vote.epoch, vote.view, vote.height, vote.block_hash, self.voices.ids[seat])

    def _hand_certificate(self) -> None:
        if self.story.decided:
            self.happens(on.CertificateReceived(self.random.choice(self.story.decided)))

    def _meet_a_fork(self) -> None:
        """More than f lie: two blocks of one height are certified, and whoever sees it stops (P7)."""
        tip = self.store.tip()
        if not tip or self.replica.pending is not None or self.replica.is_halted:
            return
        rival = block_on(self.story.header_at(tip - 1), 5, b"rival")
        above = block_on(rival, 6, b"rival")
        self.hiding = self.crashing = 0.0
        for header in (rival, above):
            self.story.know(header)
        self.replica.window.ask_again()
        view = self.replica.view + 1 + self.random.randrange(3)
        self.witness.expects_halt = True
        self.happens(on.CertificateReceived(self.voices.certificate("commit", view, above)))
        require(self.replica.is_halted, "P7", "a committed block that contradicts ours is passed over")
        self.witness.reached["fork"] += 1

    # What it asks for

    def _perform(self, effects: Iterable[do.Effect]) -> None:
        todo = [list(effects)]
        while todo:
            turn = todo.pop(0)
            self._write(turn)
            events: list[on.Event] = []
            for effect in turn:
                events += self._perform_one(effect)
            for event in events:
                self.witness.heard(event)
                todo.append(self.replica.handle(event))

    def _write(self, effects: list[do.Effect]) -> None:
        writes: list[LedgerWrite] = []
        for effect in effects:
            if isinstance(effect, do.Persist):
                writes.append(PutJournal(effect.record))
            elif isinstance(effect, do.CommitBlock):
                writes.append(AppendBlock(effect.record))
        if writes:
            self.store.apply(writes)
            if self.random.random() < self.crashing:
                raise _Crash

    def _perform_one(self, effect: do.Effect) -> list[on.Event]:
        self.witness.asks(effect)
        match effect:
            case do.Broadcast():
                return [self._say(effect.message)]
            case do.SetTimer():
                self.timers[effect.timer] = effect.generation
            case do.StopTimer():
                self.timers.pop(effect.timer, None)
            case do.SyncBlocks():
                self.syncs.append(effect)
            case do.BuildProposal():
                header = self.story.know(block_on(effect.parent, 3, self.random.randbytes(8)))
                self.pending.append(on.ProposalBuilt(effect.epoch, effect.view, header))
            case do.CheckProposal():
                height, block = effect.header.height, effect.header.hash
                return self._later(on.ProposalChecked(effect.epoch, effect.view, height, block))
            case do.FetchHeader():
                return self._later(on.HeaderLearned(self.story.library[effect.block_hash]))
            case do.FetchBodies():
                return self._later(on.BlockHeld(effect.header))
            case _:
                pass
        return []

    def _later(self, answer: on.Event) -> list[on.Event]:
        if self.random.random() < self.hiding:
            self.pending.append(answer)
            return []
        return [answer]

    def _say(self, message: Message) -> on.Event:
        self.witness.says(message)
        self.story.hears(message)
        return on.Received(on.Verified(self.voices.said(message)))

    def _sync(self, order: do.SyncBlocks) -> None:
        start, certificate = self.store.tip() + 1, order.certificate
        if start > certificate.height:
            return
        headers = [self.story.header_at(height) for height in range(start, certificate.height + 1)]
        records = [CommittedRecord(header, None) for header in headers[:-1]]
        self.store.apply([AppendBlock(record) for record in [*records, CommittedRecord(headers[-1], certificate)]])
        self.witness.reached["synced"] += 1
        self.happens(on.CaughtUp(headers[-1], certificate))
