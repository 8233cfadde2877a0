"""Where a load process sends its transactions: sessions with a ledger's nodes, or the pipe of an external system.

Both take places (indexes into the plan) and tell the book what became of them. A session does as little as it can for
each transaction, because load processes share the machine with what they measure: frames are made before the start,
everything due is written at once, answers are read without building records.
"""

import base64
import heapq
import json
import os
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress

import msgspec
import trio

from bench.book import NEVER, TARGET_CODE, Book, LanePlan
from bench.town import KINDS
from p2pledger.chain.genesis import Founding
from p2pledger.consensus.anchor import Anchor, check_receipt
from p2pledger.network.api import AwaitReceipt, Challenge, Failure, ReceiptReply, Reply, Submit, Welcome
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
"""Of one session: below the nonce window of one account and the requests that a node takes from one session."""
BUSY_FIRST_S, BUSY_MOST_S = 0.05, 2.0
"""Before a transaction that found a node full is sent again; it doubles, as in the client library."""
AWAIT_MS = 60_000
_SUBMIT, _AWAIT, _PROVE = 1, 2, 3
_STREAM_ENDS = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class LedgerLane:
    """One organisation's session. A node that goes away is left for the next one, with the identical bytes."""

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
        self._under_way: OrderedDict[int, bool] = OrderedDict()
        """Places without an answer; whether a node has accepted them."""
        self._proving: set[int] = set()
        self._retries: list[tuple[float, int]] = []
        self._out: list[bytes] = []
        self._wake = trio.Event()
        self._node = 0
        self._frames: dict[int, bytes] = {}
        self._anchors: deque[Anchor] = deque(maxlen=8)
        self.connected = trio.Event()
        """Set once the first session stands."""

    def prepare(self, place: int) -> None:
        """Make the frame of a transaction; before the start."""
        item = self._book.items[place]
        self._frames[place] = encode_frame(encode(Submit(4 * place + _SUBMIT, item.data)))

    def put(self, place: int) -> None:
        """Send it, now or when others have made room."""
        self._queue.append(place)
        self._fill()

    def _fill(self) -> None:
        while self._queue and len(self._under_way) < UNDER_WAY_MAX:
            place = self._queue.popleft()
            self._under_way[place] = False
            self._send(place)

    def _send(self, place: int) -> None:
        if self._book.sent[place] == NEVER:
            self._book.sent[place] = self._clock()
        self._write(self._frames[place])

    def _ask(self, place: int, step: int) -> None:
        item = self._book.items[place]
        question = AwaitReceipt(4 * place + step, AccountKey(item.account), Nonce(item.nonce), step == _PROVE, AWAIT_MS)
        self._write(encode_frame(encode(question)))

    def _write(self, frame: bytes) -> None:
        self._out.append(frame)
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
                self._out, self._retries = [], []
                for place, was_accepted in list(self._under_way.items()):
                    self._ask(place, _AWAIT) if was_accepted else self._send(place)
                for place in self._proving:
                    self._ask(place, _PROVE)
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
                while self._out:
                    data, self._out = b"".join(self._out), []
                    await stream.send_all(data)
                self._wake = trio.Event()
                await self._wake.wait()
        except _STREAM_ENDS:
            scope.cancel()

    async def _reader(self, stream: trio.abc.Stream) -> None:
        decoder = FrameDecoder(limits.CLIENT_REPLY_BYTES_MAX)
        with suppress(*_STREAM_ENDS):
            while data := await stream.receive_some(256 * 1024):
                now_s = self._clock()
                for body in decoder.feed(bytes(data)):
                    self._on_reply(body, now_s)

    async def _retry_when_due(self) -> None:
        while True:
            while self._retries and self._retries[0][0] <= self._clock():
                self._send(heapq.heappop(self._retries)[1])
            await trio.sleep(0.01)

    # Replies: [tag, id, ...]

    def _on_reply(self, body: bytes, now_s: float) -> None:
        reply = msgspec.msgpack.decode(body)
        place, step = divmod(reply[1], 4)
        if step == _PROVE:
            self._on_proof(place, body, reply[0])
        elif place not in self._under_way:
            return  # answered before a session broke
        elif reply[0] == 31:  # Accepted
            self._book.accepted[place] = now_s
            self._under_way[place] = True
            self._ask(place, _AWAIT)
        elif reply[0] == 32:  # ReceiptReply: executed, receipt, code
            self._finish(place, reply[2][0][3], now_s)
        else:
            self._on_failure(place, step, reply[2], now_s)

    def _on_failure(self, place: int, step: int, code: int, now_s: float) -> None:
        if step == _AWAIT and code == Code.E_BUSY:
            self._ask(place, _AWAIT)
        elif code == Code.E_BUSY:
            tried = self._book.retries[place] = self._book.retries[place] + 1
            wait_s = min(BUSY_MOST_S, BUSY_FIRST_S * 2 ** min(tried - 1, 10))
            heapq.heappush(self._retries, (now_s + wait_s, place))
        elif step == _SUBMIT and code in (Code.E_NONCE, Code.E_DUP) and self._was_sent_before(place):
            self._ask(place, _AWAIT)  # the chain may have decided it already
        else:
            self._finish(place, code, now_s)

    def _was_sent_before(self, place: int) -> bool:
        return self._node != 0 or self._book.retries[place] > 0

    def _finish(self, place: int, code: int, now_s: float) -> None:
        del self._under_way[place]
        self._frames.pop(place, None)
        if self._book.finish(place, code, now_s):
            if code == 0 and self._wants_proof(place):
                self._proving.add(place)
                self._ask(place, _PROVE)
            self._on_done()
        self._fill()

    def _on_proof(self, place: int, body: bytes, tag: int) -> None:
        if tag != 32:
            self._ask(place, _PROVE)
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
