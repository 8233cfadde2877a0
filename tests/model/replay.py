"""Plays a trace of the model with real replicas: one stage for each correct one, the liar and the others are voices.

The liar is validator `a`. Every primary of the model is the liar's, so view v of the model is the real view 4 (v + 1),
whose primary is `a`; real view 0 is a prelude. A stage is shown what the model says there was (proposals, votes of
those who cast them, VIEW-CHANGEs, a NEW-VIEW) and the replica must then do of itself what the model says it did.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from p2pledger.chain.block import Header
from p2pledger.consensus import events as on
from p2pledger.consensus.messages import Certificate, Message, NewView, ViewChange
from p2pledger.primitives.errors import InvalidInput
from tests.scenarios.stage import Stage

Block: TypeAlias = tuple[int, str]
"""Height and branch, as Chain.tla has it."""
Claim: TypeAlias = tuple[int, Block]
"""View and block; view −1: none."""
Said: TypeAlias = dict[tuple[int, Block], set[str]]
"""Who said it, by view and block."""
GENESIS: Block = (0, "trunk")
LIAR = "a"
PLAYERS = {"r1": "b", "r2": "c", "r3": "d"}


class Refused(Exception):
    """A real replica did not do what the model says."""


def real_view(view: int) -> int:
    return 4 * (view + 1)


@dataclass(slots=True)
class Player:
    """One correct replica and what it has been shown."""

    letter: str
    fork: int
    stage: Stage = field(init=False)
    view: int = 0
    shown: dict[tuple[int, int], Block] = field(default_factory=dict)
    """What the liar proposed to it, by view and height."""
    said: list[Message] = field(default_factory=list)
    """Before its last restart."""
    _blocks: dict[Block, Header] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stage = Stage(self.letter)
        self._blocks[GENESIS] = self.stage.genesis

    def block(self, block: Block) -> Header:
        if block not in self._blocks:
            self._blocks[block] = self.stage.block(self.block(self.parent(block)), int(block[1] == "right"))
        return self._blocks[block]

    def parent(self, block: Block) -> Block:
        return (block[0] - 1, block[1] if block[0] - 1 >= self.fork else "trunk")

    def certificate(self, claim: Claim) -> Certificate | None:
        """Of a claim of the model; signed by the three others, whoever voted there."""
        view, block = claim
        return (
            None
            if view < 0
            else self.stage.certificate("prepare", self.block(block), real_view(view), self.stage.others)
        )

    def has_said(self, message: Message) -> bool:
        return message in self.said or message in self.stage.sent

    def is_settled(self, block: Block) -> bool:
        """It has committed this very block and need not vote for it again, as the ordered model has it do."""
        height, block_hash = self.block(block).height, self.block(block).hash
        committed = self.stage.store.block(height)
        return committed is not None and committed.header.hash == block_hash

    # What the model says that it did

    def begins(self, hidden: Block | None = None) -> None:
        """Into the first view of the model; `hidden` was certified before, and only this replica knows."""
        if hidden is not None:
            self.stage.sees(*self.stage.prepares(self.stage.others, self.block(hidden)))
        self.stage.reaches_view(real_view(0))
        if hidden is not None:
            self.stage.withheld.add(self.block(hidden).hash)

    def prepares(self, block: Block, finals: Said) -> None:
        """It is shown the block, and what it lacks below it."""
        if self._lacks_parent(block):
            for (view, final), authors in finals.items():
                if final == self.parent(block) and len(authors) > 1:
                    self.applies(view, final, authors)
        self._is_shown(block)
        vote = self.stage.prepare(self.letter, self.block(block), real_view(self.view))
        if not self.has_said(vote) and not self.is_settled(block):
            raise Refused(f"{self.letter} does not prepare {block} in view {self.view}")

    def _lacks_parent(self, block: Block) -> bool:
        parent = self.block(self.parent(block))
        known = {parent.hash} & {self.stage.replica.base[1], self.stage.replica.window.committed.hash}
        return not known and self.shown.get((self.view, parent.height)) != self.parent(block)

    def _is_shown(self, block: Block) -> None:
        """The proposal, and those of its ancestors above the base where the liar has proposed nothing yet."""
        if block[0] - 1 > max(self.stage.replica.base[0], self.stage.committed):
            parent = self.parent(block)
            if (self.view, parent[0]) not in self.shown:
                self._is_shown(parent)
        self.shown.setdefault((self.view, block[0]), block)
        self.stage.sees(self.stage.proposal(self.block(block), real_view(self.view)))

    def commits(self, block: Block, voters: set[str]) -> None:
        """It hears the PREPAREs of those who sent one, and the liar's."""
        others = "".join(sorted(voters - {self.letter} | {LIAR}))
        self.stage.sees(*self.stage.prepares(others, self.block(block), real_view(self.view)))
        vote = self.stage.commit(self.letter, self.block(block), real_view(self.view))
        if not self.has_said(vote) and not self.is_settled(block):
            raise Refused(f"{self.letter} does not commit to {block} in view {self.view}")

    def applies(self, view: int, block: Block, authors: set[str]) -> None:
        others = "".join(sorted(authors - {self.letter} | {LIAR}))
        self.stage.sees(*self.stage.commits(others, self.block(block), real_view(view)))
        if self.stage.committed < block[0]:
            raise Refused(f"{self.letter} does not append {block}")

    def changes(self, view: int) -> None:
        """Two others ask for the view (P10)."""
        self.stage.sees(*(self.stage.view_change(who, real_view(view)) for who in self.stage.others[:2]))
        if not any(isinstance(message, ViewChange) and message.view == real_view(view) for message in self.stage.sent):
            raise Refused(f"{self.letter} does not ask for view {view}")

    def enters(self, view: int, tip: Claim, claims: dict[str, Claim]) -> None:
        """It is shown a NEW-VIEW whose highest claim is the liar's, with those of two others that are not higher."""
        self.shows_new_view(view, tip, claims)
        if (self.stage.replica.view, self.stage.replica.is_active) != (real_view(view), True):
            raise Refused(f"{self.letter} does not enter view {view}")
        self.view = view
        self.stands_on(tip[1])

    def shows_new_view(self, view: int, tip: Claim, claims: dict[str, Claim]) -> None:
        """Where every two claims have a higher one among them, the liar shows the tip in its place, against P12."""
        fitting = sorted(claims, key=lambda who: (rank(claims[who]) > rank(tip), who))[:2]
        quoted = {who: claims[who] for who in fitting} | {LIAR: tip}
        changes = [
            self.stage.view_change(who, real_view(view), self.certificate(claim)) for who, claim in quoted.items()
        ]
        headers = self._chain(tip[1])
        message = self.stage.new_view(real_view(view), changes, headers)
        try:
            self.stage.sees(self._with_tip(message, tip))
        except InvalidInput as error:
            raise Refused(f"{self.letter} does not believe the NEW-VIEW: {error}") from error

    def _chain(self, block: Block) -> tuple[Header, ...]:
        return (*self._chain(self.parent(block)), self.block(block)) if block != GENESIS else ()

    def _with_tip(self, message: NewView, tip: Claim) -> NewView:
        return NewView(
            message.epoch, message.view, message.claims, self.certificate(tip), message.headers, message.author
        )

    def stands_on(self, block: Block) -> None:
        if self.stage.replica.base != (block[0], self.block(block).hash):
            raise Refused(f"{self.letter} does not stand on {block}")

    def crashes(self) -> None:
        self.said += self.stage.sent
        self.stage.restarts()
        self.stage.hears_nothing_of_itself()

    def loses_its_journal(self) -> None:
        """And is told what it said, which the model's unsafe variant forgets."""
        own = tuple(on.Verified(self.stage.signed(message)) for message in self.stage.sent)
        self.said += self.stage.sent
        self.stage.restarts(with_empty_disk=True)
        for letter in self.stage.others[:2]:
            self.stage.happens(on.InquiryAnswered(self.stage.id(letter), own))
        if not self.stage.replica.may_sign:
            raise Refused(f"{self.letter} is silent")


def rank(claim: Claim) -> tuple[int, int]:
    return (claim[0], claim[1][0])


class Replay:
    """A trace, step by step, over three players."""

    def __init__(self, variant: str, fork: int, steps: list[Any]) -> None:
        self.variant = variant
        self.steps = steps
        self.players = {name: Player(letter, fork) for name, letter in PLAYERS.items()}
        self.votes: Said = defaultdict(set)
        self.finals: Said = defaultdict(set)
        self.claims: dict[str, Claim] = {}
        for name, player in self.players.items():
            player.begins(self._hidden(name))
            if variant == "good-child-of-a-bad-parent":
                player.stage.withheld.add(player.block((fork, "right")).hash)

    def _hidden(self, name: str) -> Block | None:
        """What the one who forgets an ancestor has accepted there without preparing it."""
        if self.variant == "forgotten-ancestor" and any(step[:3] == ["Prepare", False, name] for step in self.steps):
            first = next(step for step in self.steps if step[0] == "Prepare" and step[2] == name)
            return self.players[name].parent(_block(first[4]))
        return None

    def run(self) -> Iterator[tuple[Any, list[str]]]:
        """Each step, and what the real replicas refused of it."""
        for step in self.steps:
            yield step, list(self._refusals(step))

    def _refusals(self, step: Any) -> Iterator[str]:
        kind, is_lawful, *rest = step
        match kind:
            case "Vote":
                yield from self._vote(is_lawful, *rest)
            case "Change":
                yield from self._change(is_lawful, *rest)
            case "Prepare" | "Commit" | "Apply" | "ViewChange" | "Enter" | "Lose":
                yield from _tried(self._act, kind, is_lawful, *rest)
            case "Init":
                pass
            case _:
                raise AssertionError(f"nobody knows how to replay {kind}")

    def _vote(self, is_lawful: bool, view: int, cast: dict[str, Any], said: dict[str, Any]) -> Iterator[str]:
        cast_blocks = {name: _block(block) for name, block in cast.items() if block[0] > 0}
        said_blocks = {name: _block(block) for name, block in said.items() if block[0] > 0}
        for name, block in cast_blocks.items():
            yield from _tried(self.players[name].prepares, block, self.finals)
            self.votes[view, block].add(PLAYERS[name])
        for name, block in said_blocks.items():
            if self.variant == "commit-after-view-change" and not is_lawful:
                self.players[name].changes(view + 1)
            yield from _tried(self.players[name].commits, block, self.votes[view, block])
        for name, block in said_blocks.items():
            self.finals[view, block].add(PLAYERS[name])

    def _change(
        self, is_lawful: bool, view: int, claim: dict[str, Any], tip: dict[str, Any], other: dict[str, Any]
    ) -> Iterator[str]:
        claims = {PLAYERS[name]: _claim(value) for name, value in claim.items()}
        for name, player in self.players.items():
            yield from _tried(player.changes, view)
            yield from _tried(player.enters, view, _claim(tip[name]), claims)
            if _block(other[name]) != _claim(tip[name])[1]:
                yield from _tried(self._rebase, player, view, _block(other[name]), claims)

    def _rebase(self, player: Player, view: int, base: Block, claims: dict[str, Claim]) -> None:
        """The two ways to another base in a view that was entered."""
        if self.variant == "second-new-view":
            highest = max(at for (at, block), authors in self.votes.items() if block == base and len(authors) > 1)
            player.shows_new_view(view, (highest, base), claims)
        else:
            player.crashes()
        player.stands_on(base)

    def _act(self, kind: str, is_lawful: bool, name: str, *rest: Any) -> None:
        player = self.players[name]
        match kind, rest:
            case "Prepare", (view, block):
                if self.variant == "forgotten-ancestor" and not is_lawful:
                    player.crashes()
                player.prepares(_block(block), self.finals)
                self.votes[view, _block(block)].add(player.letter)
            case "Commit", (view, block):
                player.commits(_block(block), self.votes[view, _block(block)])
                self.finals[view, _block(block)].add(player.letter)
            case "Apply", (view, block):
                player.applies(view, _block(block), self.finals[view, _block(block)])
            case "ViewChange", (view, claim):
                player.changes(view)
                self.claims[player.letter] = _claim(claim)
            case "Enter", (view, claim):
                player.enters(view, _claim(claim), self.claims)
            case "Lose", ():
                player.loses_its_journal()
            case _:
                raise AssertionError(f"nobody knows how to replay {kind} of {rest}")


def _tried(action: Any, *args: Any) -> Iterator[str]:
    try:
        action(*args)
    except Refused as refusal:
        yield str(refusal)


def _block(value: Any) -> Block:
    return (value[0], value[1])


def _claim(value: Any) -> Claim:
    return (value[0], _block(value[1]))
