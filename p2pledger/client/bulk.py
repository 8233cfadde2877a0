"""Many signed transactions at once: one request for hundreds of them, and what the node that was asked says of each.

What it says is durable there, and proven by nobody: a node that lies can say what it likes until somebody asks for a
proof. A node that is busy gets the rest again after a while; one that breaks off, stays silent or answers nonsense is
passed over, and the identical bytes go through the next one. The nonce makes sure that they execute once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import trio

from p2pledger.chain.receipt import Executed
from p2pledger.chain.transaction import Transaction
from p2pledger.client.asking import FAULTS, reason
from p2pledger.client.links import Links, Node
from p2pledger.client.patience import Patience
from p2pledger.network.api import Failure, Outcomes, Reply, SubmitMany
from p2pledger.primitives import limits
from p2pledger.primitives.errors import Code, PeerFault, ProofError, Rejected, Unavailable

REQUEST_BYTES_MAX = limits.CLIENT_FRAME_BYTES_MAX - 1024
_HEAD_BYTES = 5
"""Before each transaction, at most."""


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a transaction as one node says: durable there, and not proven."""

    executed: Executed
    node: Node

    @property
    def code(self) -> int:
        return self.executed.receipt.code


Word: TypeAlias = Told | Rejected | Unavailable
"""Executed, whatever its code; not taken in; or not decided in time, and it may still execute until it expires."""
Settle = Callable[[int, Word], None]


def requests(transactions: Sequence[Transaction]) -> Iterator[dict[int, Transaction]]:
    """All of them by their places, in order, as many together as one request may carry."""
    group: dict[int, Transaction] = {}
    size = 0
    for place, transaction in enumerate(transactions):
        size += len(transaction.data) + _HEAD_BYTES
        if group and (len(group) == limits.BATCH_TRANSACTIONS_MAX or size > REQUEST_BYTES_MAX):
            yield group
            group, size = {}, len(transaction.data) + _HEAD_BYTES
        group[place] = transaction
    if group:
        yield group


class Sending:
    """One request's worth of transactions on their way; `settle` is called once for each of their places."""

    def __init__(self, links: Links, patience: Patience, open_places: dict[int, Transaction], settle: Settle) -> None:
        self._links = links
        self._patience = patience
        self._open = open_places
        self._settle = settle

    async def run(self) -> None:
        """Return when every place has its word. Raises nothing but what stops the program."""
        failures: list[str] = []
        with trio.move_on_after(self._patience.total_s):
            while self._open:
                node = self._links.preferred
                try:
                    await self._through(node)
                except FAULTS as error:
                    failures.append(reason(node, error))
                    if self._links.preferred is node:  # of all that fail at one node, one passes it over
                        self._links.pass_over()
                    await trio.sleep(self._patience.busy_first_s)
        said = "; ".join(dict.fromkeys(failures)) or "all were busy"
        for place, transaction in list(self._open.items()):
            self._tell(
                place,
                Unavailable(
                    f"no node has decided transaction {transaction.id.hex()} within {self._patience.total_s:g} s; "
                    f"it may still execute until it expires; {said}"
                ),
            )

    async def _through(self, node: Node) -> None:
        """Ask one node again and again while it is busy, for as long as it gets on with it. Raises what is wrong."""
        wait_s = self._patience.busy_first_s
        with trio.fail_after(self._patience.silence_s) as scope:
            while self._open:
                before = len(self._open)
                await self._ask(node, scope)
                if self._open:
                    wait_s = min(2 * wait_s, self._patience.busy_most_s)
                    if len(self._open) < before:
                        wait_s = self._patience.busy_first_s
                    await trio.sleep(wait_s)

    async def _ask(self, node: Node, scope: trio.CancelScope) -> None:
        places = list(self._open)
        data = tuple(transaction.data for transaction in self._open.values())
        request = SubmitMany(0, data, int(self._patience.silence_s * 1000))
        unanswered = set(range(len(places)))
        async with self._links.submit_many(node, request) as replies:
            async for reply in replies:
                outcomes = _expected(node, reply)
                if outcomes is None:
                    return  # busy
                before = len(self._open)
                self._take(node, places, unanswered, outcomes)
                if len(self._open) < before:
                    scope.deadline = trio.current_time() + self._patience.silence_s
                if outcomes.is_last:
                    if unanswered:
                        raise PeerFault(node.key, f"left out {len(unanswered)} of {len(places)} transactions")
                    return
        raise Unavailable(f"{node} broke off with {len(unanswered)} of {len(places)} transactions undecided")

    def _take(self, node: Node, places: list[int], unanswered: set[int], outcomes: Outcomes) -> None:
        for number, executed in outcomes.receipts:
            place = _place(node, number, places, unanswered)
            if executed.receipt.transaction != self._open[place].id:
                raise ProofError(
                    f"{node} answered transaction {self._open[place].id.hex()} with the receipt of "
                    f"{executed.receipt.transaction.hex()}"
                )
            self._tell(place, Told(executed, node))
        for refusal in outcomes.refusals:
            place = _place(node, refusal.place, places, unanswered)
            if refusal.code != Code.E_BUSY:
                self._tell(place, Rejected(_code(refusal.code), refusal.detail))

    def _tell(self, place: int, word: Word) -> None:
        del self._open[place]
        self._settle(place, word)


def _expected(node: Node, reply: Reply) -> Outcomes | None:
    """None: the node is busy. Raises Rejected for another Failure, and PeerFault."""
    match reply:
        case Outcomes():
            return reply
        case Failure(code=Code.E_BUSY):
            return None
        case Failure():
            raise Rejected(_code(reply.code), reply.detail)
        case _:
            raise PeerFault(node.key, f"answered SubmitMany with {type(reply).__name__}")


def _place(node: Node, number: int, places: list[int], unanswered: set[int]) -> int:
    if number not in unanswered:
        raise PeerFault(node.key, f"answered place {number} of {len(places)}, which waits for no answer")
    unanswered.remove(number)
    return places[number]


def _code(number: int) -> Code:
    return Code(number) if number in Code.__members__.values() else Code.E_INTERNAL
