"""Liars among those who carry: bad batches at their source, forged blocks for those who catch up."""

from msgspec.structs import replace

from p2pledger.chain.batch import Batch, parse_batch, seal
from p2pledger.chain.block import Header
from p2pledger.chain.transaction import sign
from p2pledger.messages import (
    BatchPush,
    Certified,
    HeaderReply,
    InquiryAnswer,
    PeerMessage,
    RangeReply,
    Status,
    parse_message,
)
from p2pledger.primitives import limits
from p2pledger.primitives.codec import encode
from p2pledger.primitives.ids import BlockHash, Height, Millis, Nonce, Signature, View
from p2pledger.sim.adversaries.base import Adversary
from p2pledger.sim.application import Put
from p2pledger.sim.founding import seeded_key


class BadBatch(Adversary):
    """Its batches hold forged transactions, come twice under one number, are cut, or are not signed (T14, T15)."""

    def outgoing(self, target: int, body: bytes) -> list[bytes]:
        message = parse_message(body)
        if not isinstance(message, BatchPush):
            return [body]
        batch = parse_batch(message.data)
        if batch.origin != self.node.id or self.chance.random() < 0.4:
            return [body]
        self.acts()
        kinds = [self._forged, self._doubled, self._unsigned, self._cut, self._crowded]
        return [body, *(encode(BatchPush(data)) for data in self.chance.choice(kinds)(batch))]

    def _sealed(self, sequence: int, transactions: list[bytes]) -> bytes:
        return seal(self.world.consortium.founding.chain, self.node.key, sequence, transactions)

    def _forged(self, batch: Batch) -> list[bytes]:
        last = bytearray(batch.transactions[-1])
        last[-1] ^= 1
        return [self._sealed(batch.sequence + 1, [*batch.transactions[:-1], bytes(last)])]

    def _doubled(self, batch: Batch) -> list[bytes]:
        return [self._sealed(batch.sequence, [*batch.transactions, batch.transactions[0]])]

    def _unsigned(self, batch: Batch) -> list[bytes]:
        return [encode(replace(batch, sequence=batch.sequence + 2, signature=Signature(bytes(64))))]

    def _cut(self, batch: Batch) -> list[bytes]:
        return [encode(batch)[:-3], b"", b"\xc1"]

    def _crowded(self, batch: Batch) -> list[bytes]:
        count = limits.BATCH_TRANSACTIONS_MAX + 1
        return [encode(replace(batch, transactions=(batch.transactions[0],) * count))]


class Junker(Adversary):
    """Seals as many full batches as it may of transactions whose senders nobody knows (T44).

    They are properly signed and may be ordered: each costs everybody room in a block, and leads to nothing.
    """

    def __init__(self, burst: int = 1) -> None:
        """`burst`: batches each time that it speaks; of the largest size, so that two fill a block."""
        self.burst = burst
        self.sealed = 0

    def idle(self) -> None:
        self.acts()
        for _ in range(self.burst):
            self.sealed += 1
            body = encode(BatchPush(self._batch(self.sealed)))
            for target in self.others():
                self.world.carry(self.node.index, target, body)

    def _batch(self, sequence: int) -> bytes:
        chain = self.world.consortium.founding.chain
        filling = [Put(b"x" * 32, b"y" * 256)] * 200
        transactions = []
        for number in range(limits.BATCH_BYTES_MAX // limits.TRANSACTION_BYTES_MAX):
            until = Millis(self.node.moment().wall_ms + 60_000)
            key = seeded_key("nobody", sequence)
            transactions.append(sign(chain, key, Nonce(number + 1), until, filling))
            self.world.observer.submitted(transactions[-1])
        return seal(chain, self.node.key, sequence, transactions)


class SyncPoisoner(Adversary):
    """Answers those who catch up with forged, cut, doubled or reordered blocks, and boasts of heights (T24, T25)."""

    def outgoing(self, target: int, body: bytes) -> list[bytes]:
        message = parse_message(body)
        changed = self._changed(message)
        if changed is message:
            return [body]
        self.acts()
        return [encode(changed)]

    def _changed(self, message: PeerMessage) -> PeerMessage:
        chance = self.chance
        match message:
            case RangeReply():
                blocks, certificate = message.blocks, message.certificate
                last = replace(blocks[-1], header=self._forged(blocks[-1].header))
                spoilt = [
                    replace(message, blocks=blocks[::-1]),
                    replace(message, blocks=(*blocks, blocks[-1])[: limits.SYNC_RANGE_BLOCKS_MAX]),
                    replace(message, blocks=blocks[1:] or blocks),
                    replace(message, blocks=(replace(blocks[0], bodies=()), *blocks[1:])),
                    replace(message, blocks=(*blocks[:-1], last)),
                    replace(message, certificate=replace(certificate, votes=certificate.votes[:-1])),
                    replace(message, certificate=replace(certificate, block_hash=BlockHash(bytes(32)))),
                    replace(message, tail=()),
                ]
                return chance.choice(spoilt)
            case HeaderReply():
                return replace(message, header=self._forged(message.header))
            case Certified():
                return replace(message, certificate=replace(message.certificate, height=Height(2**40)))
            case Status():
                return replace(message, committed=Height(2**40), view=View(2**40))
            case InquiryAnswer():
                return replace(message, own=message.own[:1] * 2)
            case _:
                return message

    def _forged(self, header: Header) -> Header:
        return replace(header, time_ms=Millis(header.time_ms + 1))
