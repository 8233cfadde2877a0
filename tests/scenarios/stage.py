"""One replica on a stage: the others are only voices, whose every word is really signed and really verified.

Validators are called by letters in the order of their seats, so `a` is the primary of view 0, `b` of view 1, and so on.
The stage performs effects as a driver does: it journals in a real (memory) store, checks that nothing is said that is
not journalled, signs, and lets the replica hear its own words.
"""

from collections.abc import Iterable

import msgspec

from p2pledger.chain.block import Header
from p2pledger.chain.genesis import Parameters
from p2pledger.chain.statement import Claim
from p2pledger.consensus import effects as do
from p2pledger.consensus import events as on
from p2pledger.consensus.bounds import is_wanted
from p2pledger.consensus.certificates import build_certificate
from p2pledger.consensus.journal import VoteRecord
from p2pledger.consensus.messages import (
    Certificate,
    Commit,
    Kind,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    Signed,
    SignedClaim,
    ViewChange,
    ballot_statement,
    statement,
)
from p2pledger.consensus.recovery import restore
from p2pledger.consensus.replica import Replica
from p2pledger.consensus.verification import verify_message
from p2pledger.engine.ports import AppendBlock, PutJournal
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.ids import Epoch, Height, Millis, ValidatorId, View
from p2pledger.sim.founding import found
from p2pledger.storage.memory import MemoryLedgerStore

LETTERS = "abcdefghijklm"


class Stage:
    """`me` is real; everybody else says what the test makes them say."""

    def __init__(self, me: str = "b", n: int = 4, parameters: Parameters | None = None, is_ready: bool = True) -> None:
        consortium = found(n, parameters or Parameters())
        self.founding = consortium.founding
        self.chain = self.founding.chain
        by_id = {key.public: key for key in consortium.consensus}
        self.keys: dict[str, SigningKey] = {
            letter: by_id[member.id] for letter, member in zip(LETTERS, self.founding.validators.members, strict=False)
        }
        self.me = me
        self.genesis = self.founding.header
        self.store = MemoryLedgerStore(self.chain, self.genesis.hash)
        self.library: dict[bytes, Header] = {}
        """Blocks that can be fetched, with their bodies."""
        self.withheld: set[bytes] = set()
        """Blocks that are not found good (P3), or whose bodies do not come."""
        self.proposes: list[Header] = []
        """What the replica is given to propose, in order."""
        self.checked: list[Header] = []
        """What it asked to be checked."""
        self.sent: list[Message] = []
        self.effects: list[do.Effect] = []
        self.replica = Replica(self.founding, self.id(me))
        self._perform(self.replica.start())
        if is_ready:
            self.hears_nothing_of_itself()

    # The cast

    def id(self, letter: str) -> ValidatorId:
        return ValidatorId(self.keys[letter].public)

    def block(self, parent: Header | None = None, variant: int = 0) -> Header:
        """A block on `parent` (the genesis), with nothing in it; it can be fetched from now on."""
        parent = parent or self.genesis
        header = msgspec.structs.replace(
            parent, height=Height(parent.height + 1), parent=parent.hash, time_ms=Millis(parent.time_ms + 1 + variant)
        )
        self.library[header.hash] = header
        return header

    def chain_of(self, count: int, parent: Header | None = None, variant: int = 0) -> list[Header]:
        blocks: list[Header] = []
        for _ in range(count):
            parent = self.block(parent, variant)
            blocks.append(parent)
        return blocks

    def primary(self, view: int) -> str:
        return LETTERS[view % self.founding.validators.n]

    def proposal(self, block: Header, view: int = 0) -> PrePrepare:
        return PrePrepare(Epoch(0), View(view), block, self.id(self.primary(view)))

    def prepare(self, who: str, block: Header, view: int = 0) -> Prepare:
        return Prepare(Epoch(0), View(view), block.height, block.hash, self.id(who))

    def prepares(self, who: str, block: Header, view: int = 0) -> list[Message]:
        return [self.prepare(letter, block, view) for letter in who]

    def commit(self, who: str, block: Header, view: int = 0) -> Commit:
        return Commit(Epoch(0), View(view), block.height, block.hash, self.id(who))

    def commits(self, who: str, block: Header, view: int = 0) -> list[Message]:
        return [self.commit(letter, block, view) for letter in who]

    def certificate(self, kind: Kind, block: Header, view: int = 0, who: str = "acd") -> Certificate:
        bare = Certificate(kind, Epoch(0), View(view), block.height, block.hash, ())
        signed = {
            self.id(letter): self.keys[letter].sign(ballot_statement(self.chain, bare, self.id(letter)))
            for letter in who
        }
        place = (Epoch(0), View(view), block.height)
        return build_certificate(kind, place, block.hash, signed, self.founding.validators)

    def view_change(
        self, who: str, view: int, lock: Certificate | None = None, committed: Certificate | None = None
    ) -> ViewChange:
        claim = None if lock is None else Claim(lock.view, lock.height, lock.block_hash)
        return ViewChange(Epoch(0), View(view), claim, self.id(who), lock, committed)

    def new_view(self, view: int, changes: Iterable[ViewChange], headers: tuple[Header, ...] = ()) -> NewView:
        """What the primary of `view` makes of these VIEW-CHANGEs."""
        quoted = sorted((self._quote(change) for change in changes), key=lambda claim: claim.author)
        bare = NewView(Epoch(0), View(view), tuple(quoted), None, headers, self.id(self.primary(view)))
        tip = bare.tip
        lock = next((c.lock for c in changes if tip is not None and c.claim is not None and c.claim == tip), None)
        return msgspec.structs.replace(bare, certificate=lock)

    def _quote(self, change: ViewChange) -> SignedClaim:
        return SignedClaim(change.author, change.claim, self.signed(change).signature)

    def signed(self, message: Message) -> Signed:
        key = next(key for key in self.keys.values() if key.public == message.author)
        return Signed(message, key.sign(statement(self.chain, message)))

    # What happens

    def sees(self, *messages: Message) -> None:
        """The replica receives each of these, if it wants them at all (P23) and they verify."""
        for message in messages:
            signed = self.signed(message)
            if is_wanted(self.replica, signed):
                verified = verify_message(signed, self.chain, self.replica.epoch, self.founding.validators)
                self.happens(on.Received(verified))

    def happens(self, event: on.Event) -> None:
        self._perform(self.replica.handle(event))

    def fires(self, timer: str = "progress") -> None:
        """The last timer of this name that was asked for runs out."""
        asked = [effect for effect in self.effects if isinstance(effect, do.SetTimer) and effect.timer == timer]
        self.happens(on.TimerFired(asked[-1].timer, asked[-1].generation))

    def hears_nothing_of_itself(self) -> None:
        """P20: everybody answers the inquiry; nobody holds anything of ours."""
        for letter in self.keys:
            if letter != self.me:
                self.happens(on.InquiryAnswered(self.id(letter), ()))

    def restarts(self, with_empty_disk: bool = False) -> None:
        """The process dies here and starts again from its store; it has not asked the others yet."""
        self.store = MemoryLedgerStore(self.chain, self.genesis.hash) if with_empty_disk else self.store.reopened()
        self.replica = Replica(self.founding, self.id(self.me))
        tip = self.store.tip()
        restore(self.replica, self.store.journal(), self.store.block(tip) if tip else None)
        self.sent, self.effects, self.checked = [], [], []
        self._perform(self.replica.start())

    def reaches_view(self, view: int, lock: Certificate | None = None, headers: tuple[Header, ...] = ()) -> None:
        """Three others change to `view` with this lock, and its primary shows it."""
        changes = [self.view_change(who, view, lock) for who in self.others[:3]]
        self.sees(*changes)
        self.sees(self.new_view(view, changes, headers))

    @property
    def others(self) -> str:
        return "".join(letter for letter in self.keys if letter != self.me)

    # What came of it

    @property
    def committed(self) -> int:
        return int(self.store.tip())

    def said(self, kind: type[Message]) -> list[Message]:
        """What the replica said of one kind, each statement once."""
        return [message for message in dict.fromkeys(self.sent) if isinstance(message, kind)]

    def asked(self, kind: type[do.Effect]) -> list[do.Effect]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    @property
    def last(self) -> do.Effect:
        return self.effects[-1]

    def _perform(self, effects: Iterable[do.Effect]) -> None:
        todo = list(effects)
        while todo:
            effect = todo.pop(0)
            self.effects.append(effect)
            todo += [asked for event in self._perform_one(effect) for asked in self.replica.handle(event)]

    def _perform_one(self, effect: do.Effect) -> list[on.Event]:
        match effect:
            case do.Persist():
                self.store.apply([PutJournal(effect.record)])
            case do.CommitBlock():
                self.store.apply([AppendBlock(effect.record)])
            case do.Broadcast():
                assert VoteRecord(effect.message) in self.store.journal() or _is_settled(effect.message, self.store), (
                    "P19: it must be journalled before it is said"
                )
                self.sent.append(effect.message)
                return [on.Received(on.Verified(self.signed(effect.message)))]
            case do.CheckProposal():
                self.checked.append(effect.header)
                if effect.header.hash not in self.withheld:
                    header = effect.header
                    return [on.ProposalChecked(effect.epoch, effect.view, header.height, header.hash)]
            case do.FetchHeader():
                if effect.block_hash in self.library and effect.block_hash not in self.withheld:
                    return [on.HeaderLearned(self.library[effect.block_hash])]
            case do.FetchBodies():
                if effect.header.hash not in self.withheld:
                    return [on.BlockHeld(effect.header)]
            case do.BuildProposal():
                fitting = [header for header in self.proposes if header.parent == effect.parent.hash]
                if fitting:
                    return [on.ProposalBuilt(effect.epoch, effect.view, fitting[0])]
            case _:
                pass
        return []


def _is_settled(message: Message, store: MemoryLedgerStore) -> bool:
    return isinstance(message, PrePrepare | Prepare | Commit) and message.height <= store.tip()


def parameters(**changes: int) -> Parameters:
    """The defaults, changed."""
    return msgspec.structs.replace(Parameters(), **changes)
