"""Where a load process sends its transactions: sessions with a ledger's nodes, or the pipe of an external system.

Both take places (indexes into the plan) and tell the book what became of them. A session does as little as it can for
each transaction, because load processes share the machine with what they measure: everything that is due is one
request, answers are read without building records.
"""

import base64
import heapq
import json
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import msgspec
import trio

from bench.book import NEVER, TARGET_CODE, Book, LanePlan
from bench.town import KINDS
from p2pledger.chain.genesis import Founding
from p2pledger.consensus.anchor import Anchor, check_receipt
from p2pledger.network.api import AwaitReceipt, Challenge, Failure, ReceiptReply, Reply, SubmitMany, Welcome
from p2pledger.network.authentication import make_hello
from p2pledger.network.frame import FrameDecoder, Tag, encode_frame
from p2pledger.network.lobby import receive_first
from p2pledger.network.transport import TLS_OVER_TCP
from p2pledger.primitives import limits
from p2pledger.primitives.codec import decode, encode
from p2pledger.primitives.crypto import SigningKey
from p2pledger.primitives.errors import Code, InvalidInput, ProofError, Unavailable
from p2pledger.primitives.ids import AccountKey, NodeId, Nonce

UNDER_WAY_MAX = 900
"""Of one session: below the nonce window of one account and the transactions that a node takes from one session."""
WINDOW_LEAST, WINDOW_GROWTH = 16, 0.1
"""Under way at a node that is busy, and by how much that grows with each answer."""
BUSY_FIRST_S, BUSY_MOST_S = 0.05, 2.0
"""Before a transaction that found a node full is sent again; it doubles, as in the client library."""
AWAIT_MS = 60_000
REQUEST_BYTES_MAX = limits.CLIENT_FRAME_BYTES_MAX - 4_096
"""Of the transactions in one request, with five bytes for each."""
_OUTCOMES, _RECEIPT = 62, 32
_STREAM_ENDS = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class LedgerLane:
    """One organisation's session. A node that goes away is left for the next one, with the identical bytes.

    All that is due within a turn goes out as one request, and the node answers whatever a block decides of it at once.
    """

    def __init__(
        self,
        plan: LanePlan,
        founding: Founding,
        book: Book,
        clock: Callable[[], float],
        on_done: Callable[[], None],
        wants_proof: Callable[[int], bool],
    ) -> None:
        self.plan = plan
        self._key = SigningKey(plan.seed)
        self._founding = founding
        self._book = book
        self._clock = clock
        self._on_done = on_done
        self._wants_proof = wants_proof
        self._queue: deque[int] = deque()
        """Places to be sent when the turn is over, or when others have made room."""
        self._under_way: set[int] = set()
        """Places that were sent and have no answer."""
        self._requests: dict[int, list[int]] = {}
        """The places of each request of this session that is not answered for good."""
        self._request = 0
        self._proving: set[int] = set()
        self._proofs: list[int] = []
        """Places whose proofs are to be asked for when the turn is over."""
        self._retries: list[tuple[float, int]] = []
        self._has_retries = trio.Event()
        self._window: float = UNDER_WAY_MAX
        """How many may be under way: as TCP does it, falls to what the node took when it is busy, and grows again."""
        self._wake = trio.Event()
        self._node = 0
        self._anchors: deque[Anchor] = deque(maxlen=8)
        self.connected = trio.Event()
        """Set once the first session stands."""

    def prepare(self, place: int) -> None:
        """Nothing: its bytes are signed, and what goes into one request with it is only known when it is due."""

    def put(self, place: int) -> None:
        """Send it, now or when others have made room."""
        self._queue.append(place)
        self._wake.set()

    # The session

    async def run(self) -> None:
        """Hold a session until cancelled; raises P2PLedgerError where a node shows a wrong proof or key."""
        while True:
            host, port, key = self.plan.nodes[self._node]
            with suppress(Unavailable, *_STREAM_ENDS):
                await self._session(host, port, NodeId(key))
            self._node = (self._node + 1) % len(self.plan.nodes)
            await trio.sleep(BUSY_FIRST_S)

    async def _session(self, host: str, port: int, server: NodeId) -> None:
        with trio.move_on_after(5.0) as patience:
            secured = TLS_OVER_TCP.to_client_port(await TLS_OVER_TCP.connect(host, port), server)
            stream = secured.stream
            try:
                await secured.handshake()
                await self._say_hello(stream, server)
                patience.deadline = float("inf")
                again = {*self._under_way, *(place for _, place in self._retries)}
                self._queue.extendleft(sorted(again, reverse=True))
                self._under_way.clear()
                self._requests.clear()
                self._retries.clear()
                self._proofs = sorted(self._proving)
                self._wake.set()
                self.connected.set()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._writer, stream, nursery.cancel_scope)
                    nursery.start_soon(self._retry_when_due)
                    await self._reader(stream)
                    nursery.cancel_scope.cancel()
            finally:
                await trio.aclose_forcefully(stream)

    async def _say_hello(self, stream: trio.abc.Stream, server: NodeId) -> None:
        challenge = decode(Challenge, await receive_first(stream, Tag.HELLO), limits.HANDSHAKE_BYTES_MAX)
        hello = make_hello(challenge, server, self._key, os.urandom(32))
        await stream.send_all(encode_frame(encode(hello), Tag.HELLO))
        kinds = Welcome | Failure
        answer = decode(kinds, await receive_first(stream, Tag.HELLO), limits.HANDSHAKE_BYTES_MAX)  # type: ignore
        if isinstance(answer, Failure):
            raise Unavailable(f"node at lane {self.plan.number} refused the session: {answer.detail}")

    async def _writer(self, stream: trio.abc.Stream, scope: trio.CancelScope) -> None:
        try:
            while True:
                while frames := self._due():
                    await stream.send_all(b"".join(frames))
                self._wake = trio.Event()
                await self._wake.wait()
        except _STREAM_ENDS:
            scope.cancel()

    def _due(self) -> list[bytes]:
        """The frames of all that is due now."""
        frames = []
        while places := self._next_places():
            self._request += 1
            self._requests[self._request] = places
            items = self._book.items
            request = SubmitMany(2 * self._request, tuple(items[place].data for place in places), AWAIT_MS)
            frames.append(encode_frame(encode(request)))
        for place in self._proofs:
            item = self._book.items[place]
            question = AwaitReceipt(2 * place + 1, AccountKey(item.account), Nonce(item.nonce), True, AWAIT_MS)
            frames.append(encode_frame(encode(question)))
        self._proofs = []
        return frames

    def _next_places(self) -> list[int]:
        """As many as are due, have room on the session, and fit into one request."""
        book, now_s = self._book, self._clock()
        room = min(int(self._window) - len(self._under_way), limits.BATCH_TRANSACTIONS_MAX)
        places: list[int] = []
        size = 0
        while self._queue and len(places) < room:
            place = self._queue[0]
            size += len(book.items[place].data) + 5
            if size > REQUEST_BYTES_MAX:
                break
            places.append(self._queue.popleft())
            if book.sent[place] == NEVER:
                book.sent[place] = now_s
        self._under_way.update(places)
        return places

    async def _reader(self, stream: trio.abc.Stream) -> None:
        decoder = FrameDecoder(limits.CLIENT_REPLY_BYTES_MAX)
        with suppress(*_STREAM_ENDS):
            while data := await stream.receive_some(256 * 1024):
                now_s = self._clock()
                for body in decoder.feed(bytes(data)):
                    self._on_reply(body, now_s)

    async def _retry_when_due(self) -> None:
        while True:
            if not self._retries:
                self._has_retries = trio.Event()
                await self._has_retries.wait()
            await trio.sleep(min(max(0.0, self._retries[0][0] - self._clock()), BUSY_FIRST_S))
            while self._retries and self._retries[0][0] <= self._clock():
                self.put(heapq.heappop(self._retries)[1])

    # Replies: [tag, id, ...]

    def _on_reply(self, body: bytes, now_s: float) -> None:
        reply = msgspec.msgpack.decode(body)
        number, is_proof = divmod(reply[1], 2)
        if is_proof:
            self._on_proof(number, body, reply[0])
        elif number not in self._requests:
            return
        elif reply[0] == _OUTCOMES:  # receipts as [place, [receipt, events]], refusals as [place, code, words], is last
            places = self._requests[number]
            for place, executed in reply[2]:
                self._finish(places[place], executed[0][3], now_s)
            for place, code, _ in reply[3]:
                self._on_refusal(places[place], code, now_s)
            if reply[4]:
                del self._requests[number]
        else:  # Failure: code, words
            for place in self._requests.pop(number):
                self._on_refusal(place, reply[2], now_s)

    def _on_refusal(self, place: int, code: int, now_s: float) -> None:
        if code == Code.E_BUSY:
            self._under_way.remove(place)
            self._window = max(WINDOW_LEAST, min(self._window, len(self._under_way)))
            tried = self._book.retries[place] = self._book.retries[place] + 1
            wait_s = min(BUSY_MOST_S, BUSY_FIRST_S * 2 ** min(tried - 1, 10))
            heapq.heappush(self._retries, (now_s + wait_s, place))
            self._has_retries.set()
        else:
            self._finish(place, code, now_s)

    def _finish(self, place: int, code: int, now_s: float) -> None:
        self._under_way.remove(place)
        self._window = min(self._window + WINDOW_GROWTH, UNDER_WAY_MAX)
        if self._book.finish(place, code, now_s):
            if code == 0 and self._wants_proof(place):
                self._proving.add(place)
                self._prove(place)
            self._on_done()
        if self._queue:
            self._wake.set()

    def _prove(self, place: int) -> None:
        self._proofs.append(place)
        self._wake.set()

    def _on_proof(self, place: int, body: bytes, tag: int) -> None:
        if tag != _RECEIPT:
            self._prove(place)
            return
        reply: Reply = decode(Reply, body, limits.CLIENT_REPLY_BYTES_MAX)  # type: ignore[arg-type]
        if not isinstance(reply, ReceiptReply) or reply.evidence is None:
            raise ProofError(f"receipt of nonce {self._book.items[place].nonce} without its proof")
        anchor = reply.evidence.anchor
        known = anchor in self._anchors
        check_receipt(reply.evidence, self._founding.chain, self._founding.validators, known)
        if not known:
            self._anchors.append(anchor)
        self._book.proven[place] = self._clock()
        self._proving.discard(place)


class CommandLane:
    """An external system behind a command: JSON lines in both directions, so anything can be measured alike.

    To the command: {"id": 7, "kind": "record", "payload": "<base64>"}. From it, first {"ready": true}, then
    {"id": 7, "ok": true} once that transaction is durable, in any order.
    """

    def __init__(self, command: tuple[str, ...], book: Book, clock: Callable[[], float], on_done: Callable[[], None]):
        self._command = command
        self._book = book
        self._clock = clock
        self._on_done = on_done
        self._lines: dict[int, bytes] = {}
        self._out: list[bytes] = []
        self._wake = trio.Event()
        self.connected = trio.Event()

    def prepare(self, place: int) -> None:
        """Make the line of a transaction; before the start."""
        item = self._book.items[place]
        payload = base64.b64encode(item.data).decode()
        line = json.dumps({"id": place, "kind": KINDS[item.kind], "payload": payload})
        self._lines[place] = line.encode() + b"\n"

    def put(self, place: int) -> None:
        """Send it."""
        self._book.sent[place] = self._clock()
        self._out.append(self._lines.pop(place))
        self._wake.set()

    async def run(self) -> None:
        """Start the command and keep it until cancelled. Raises Unavailable when it ends by itself."""
        process = await trio.lowlevel.open_process(
            self._command, stdin=-1, stdout=-1, start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._writer, process)
                await self._reader(process)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await end(process)
        raise Unavailable(f"{self._command[0]} ended with status {process.returncode}")

    async def _writer(self, process: trio.Process) -> None:
        assert process.stdin is not None
        while True:
            while self._out:
                data, self._out = b"".join(self._out), []
                with suppress(*_STREAM_ENDS):
                    await process.stdin.send_all(data)
            self._wake = trio.Event()
            await self._wake.wait()

    async def _reader(self, process: trio.Process) -> None:
        assert process.stdout is not None
        rest = b""
        while data := await process.stdout.receive_some(256 * 1024):
            now_s = self._clock()
            *lines, rest = (rest + bytes(data)).split(b"\n")
            for line in lines:
                self._on_line(line, now_s)

    def _on_line(self, line: bytes, now_s: float) -> None:
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise InvalidInput(f"{self._command[0]} said {line[:80]!r}, which is not JSON") from error
        if answer.get("ready"):
            self.connected.set()
        elif self._book.finish(answer["id"], 0 if answer.get("ok") else TARGET_CODE, now_s):
            self._on_done()


async def end(process: trio.Process, patience_s: float = 5.0) -> None:
    """SIGTERM, and SIGKILL where that is not enough."""
    if process.returncode is None:
        process.terminate()
        with trio.move_on_after(patience_s):
            await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()


Lane = LedgerLane | CommandLane
