"""One question to several nodes, of which some may be silent, slow or lying: the first good answer, or what f + 1 say.

What an answer must stand is the caller's business (`check`); whom to try next, and how long to wait, is decided here.
"""

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import trio

from p2pledger.chain.genesis import Founding
from p2pledger.client.links import Links, Node
from p2pledger.client.patience import Patience
from p2pledger.network.api import Failure, Question, Reply
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, InvalidInput, PeerFault, ProofError, Rejected, Unavailable
from p2pledger.primitives.ids import AccountKey

R = TypeVar("R")
A = TypeVar("A")

FAULTS = (Unavailable, PeerFault, ProofError, InvalidInput, trio.TooSlowError)
"""What one node can do to us; another may do better. A Rejected is an answer, though it is an InvalidInput."""


class Busy(Unavailable):
    """A node is full or has not got there yet; the same question may be asked again."""


class Asker:
    """In the name of one account; any number of its calls may run at the same time."""

    def __init__(self, founding: Founding, links: Links, account: SigningKey, patience: Patience) -> None:
        self.founding = founding
        self._links = links
        self._account = account
        self._patience = patience

    @property
    def account(self) -> AccountKey:
        return AccountKey(self._account.public)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All that it knows, the ones that answer well first."""
        return tuple(self._links.in_order())

    async def ask_one(self, node: Node, request: Question, kind: type[R]) -> R:
        """What this node answers, believed or not. Raises what is wrong with it, trio.TooSlowError, Rejected."""
        with trio.fail_after(self._patience.silence_s):
            return await self.patiently(node, request, kind)

    async def told(self, request: Question, kind: type[R]) -> R:
        """The first node's answer to any question; as the node says."""
        return await self.ask(request, kind, _as_it_is)

    async def ask(self, request: Question, kind: type[R], check: Callable[[R], A]) -> A:
        """The first answer that stands its check. Raises Rejected, or what went wrong at the last node."""
        failure: Exception = Unavailable("no node to ask")
        for node in self._links.in_order():
            try:
                return check(await self.ask_one(node, request, kind))
            except Rejected:
                raise
            except trio.TooSlowError:
                failure = Unavailable(f"{node} has not answered within {self._patience.silence_s:g} s")
            except FAULTS as error:
                failure = error
        raise failure

    async def alike(self, request: Question, kind: type[R], read: Callable[[R], A]) -> A:
        """What f + 1 nodes say alike, of which one is honest; all of them where fewer are named."""
        nodes = list(self._links.in_order())
        needed = min(self.founding.validators.f + 1, len(nodes))
        told: Counter[A] = Counter()
        failures: list[tuple[Node, Exception]] = []
        for node in nodes:
            try:
                found = read(await self.ask_one(node, request, kind))
            except FAULTS as error:
                failures.append((node, error))
                continue
            told[found] += 1
            if told[found] == needed:
                return found
        if len(failures) == len(nodes) and isinstance(failures[0][1], Rejected):
            raise failures[0][1]
        said = "; ".join(reason(*one) for one in failures) or told
        raise Unavailable(f"no {needed} nodes say alike what {self.account.hex()} asks; {said}")

    async def patiently(self, node: Node, request: Question, kind: type[R]) -> R:
        """Ask again while the node is busy, waiting twice as long each time."""
        wait_s = self._patience.busy_first_s
        while True:
            try:
                return await self._answer(node, request, kind)
            except Unavailable as error:
                if not isinstance(error, Busy):
                    raise
            await trio.sleep(wait_s)
            wait_s = min(2 * wait_s, self._patience.busy_most_s)

    async def _answer(self, node: Node, request: Question, kind: type[R]) -> R:
        """Raises Busy, Rejected for a Failure, Unavailable and PeerFault."""
        reply: Reply = await self._links.call(node, request)
        if isinstance(reply, Failure):
            code = Code(reply.code) if reply.code in Code.__members__.values() else Code.E_INTERNAL
            if code is Code.E_BUSY:
                raise Busy(f"{node} is busy: {reply.detail}")
            raise Rejected(code, reply.detail)
        if not isinstance(reply, kind):
            raise PeerFault(node.key, f"answered {type(request).__name__} with {type(reply).__name__}")
        return reply


def reason(node: Node, error: BaseException) -> str:
    return f"{node}: {'silence' if isinstance(error, trio.TooSlowError) else error}"


def _as_it_is(reply: R) -> R:
    return reply
