"""Frames: how a stream of bytes is cut into messages. No input or output here.

A frame is a u32 big-endian length, a u8 tag and a body; the length counts the tag and the body. A length that is
zero or above the limit is refused as soon as its four bytes are there, before anything is kept for it (T1).
"""

from enum import IntEnum

from p2pledger.primitives.errors import InvalidInput

HEAD_BYTES = 4


class Tag(IntEnum):
    """What the body of a frame is."""

    MESSAGE = 1
    """A message of the layer above: never empty."""
    PING = 2
    """Nothing to say, but still here: no body, no answer."""
    HELLO = 3
    """The first frame of a link between nodes, and only that."""


def encode_frame(body: bytes, tag: Tag = Tag.MESSAGE) -> bytes:
    """The frame that carries `body`."""
    return (len(body) + 1).to_bytes(HEAD_BYTES, "big") + bytes([tag]) + body


PING = encode_frame(b"", Tag.PING)


def check_length(length: int, bytes_max: int) -> None:
    """Raises InvalidInput unless a frame may claim this length."""
    if length == 0:
        raise InvalidInput("frame of length 0: not even a tag")
    if length > bytes_max:
        raise InvalidInput(f"frame of {length} bytes is longer than the limit of {bytes_max}")


class FrameDecoder:
    """Cuts what a stream delivers into message bodies; pings are counted and left out.

    It never keeps more than one frame of at most `bytes_max` bytes plus what one `feed` brought. After InvalidInput
    the stream has lost its place: close it.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.frames = 0
        """All complete frames so far, pings too: what a message budget counts."""
        self._rest = bytearray()
        self._wanted = HEAD_BYTES
        """Bytes that `_rest` must reach before another look at it is worth while."""

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies of all messages that `data` completes. Raises InvalidInput naming the length and the limit."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        bodies: list[bytes] = []
        start, end = 0, len(data)
        self._wanted = HEAD_BYTES
        while end - start >= HEAD_BYTES:
            length = int.from_bytes(data[start : start + HEAD_BYTES], "big")
            check_length(length, self.bytes_max)
            stop = start + HEAD_BYTES + length
            if stop > end:
                self._wanted = stop - start
                break
            tag = data[start + HEAD_BYTES]
            if tag == Tag.MESSAGE and length > 1:
                bodies.append(data[start + HEAD_BYTES + 1 : stop])
            elif tag != Tag.PING or length > 1:
                raise InvalidInput(f"frame of tag {tag} and length {length} has no place here")
            self.frames += 1
            start = stop
        self._rest += data[start:]
        return bodies
