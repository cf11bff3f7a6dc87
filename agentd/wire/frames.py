"""The binary face: bytes in, messages out, and back. No I/O, and it does not know which side it serves.

A connection begins with the byte MAGIC, sent by the client. Then, both ways, frames:

    length (4 bytes, little-endian, of what follows) | msgpack array of messages

What was said in one turn travels as one array: splitting and decoding a frame costs the same for one message as for a
hundred. A message whose encoding is over CHUNK_BYTES is cut into Chunk messages, so that it holds nobody up; those that
must keep their place behind it wait for its last piece, the others go between.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from agentd.wire.errors import BadRequest, TooLarge
from agentd.wire.messages import (
    Answer,
    Chunk,
    ClientMessage,
    DaemonMessage,
    Done,
    LaggedEvent,
    Leave,
    Message,
    Publish,
    Reply,
    Request,
    Send,
)

MAGIC: Final = 0xA9
CHUNK_BYTES: Final = 64 * 1024
#: A frame may be this much larger than the largest body: the rest of its message.
FRAME_SLACK_BYTES: Final = 64 * 1024
MAX_STREAMS: Final = 8
#: What comes byte by byte is put together before the pieces need more room than what is in them.
MAX_PIECES: Final = 1024
_LENGTH_BYTES: Final = 4
#: These never overtake a large one pushed before them: a sender's order holds for each receiver, and Done says that
#: what was on its way has come.
_ORDERED: Final = frozenset({Send, Request, Reply, Publish, Leave, Message, Answer, LaggedEvent, Done})

_encode = msgspec.msgpack.Encoder().encode
_unpack_length = struct.Struct("<I").unpack_from
#: The beginning of a frame with few messages: its length, and msgpack's array of up to 15.
_pack_short = struct.Struct("<IB").pack
_SHORT_ARRAY: Final = 0x90
_MAX_SHORT: Final = 15

M = TypeVar("M", ClientMessage, DaemonMessage)


class _Stream:
    """A large message of which some pieces have come."""

    __slots__ = ("missing", "pieces")

    def __init__(self, size_bytes: int) -> None:
        self.pieces: list[bytes] = []
        self.missing = size_bytes


class FrameReader(Generic[M]):
    """Bytes to messages. After it raised, the connection is of no more use: the place in the stream is lost."""

    def __init__(self, messages: Any, max_body_bytes: int) -> None:
        self._decode_frame = msgspec.msgpack.Decoder(list[messages]).decode
        self._decode_message = msgspec.msgpack.Decoder(messages).decode
        self._max_bytes = max_body_bytes + FRAME_SLACK_BYTES
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = _LENGTH_BYTES
        self._streams: dict[int, _Stream] = {}
        self._streams_bytes = 0  # what the unfinished ones will have in all
        self._streams_have = 0  # what has come of them
        self.frames = 0  # completed so far; a peer that owes the rest of one and completes none is stuck

    @property
    def unfinished(self) -> bool:
        """Whether the other side owes the rest of a frame or of a large message."""
        return bool(self._have or self._streams)

    @property
    def unfinished_bytes(self) -> int:
        """How much of them has come and is kept."""
        return self._have + self._streams_have

    def feed(self, data: bytes | memoryview) -> list[M]:
        """All messages completed by `data`; BadRequest or TooLarge when the bytes can't be the protocol. What is
        kept of `data` is copied: it may be a view of a buffer that is read into again."""
        end = len(data)
        if self._have:
            self._pieces.append(bytes(data))
            self._have += end
            if self._have < self._need:
                if len(self._pieces) > MAX_PIECES:
                    self._pieces = [b"".join(self._pieces)]
                return []
            data = b"".join(self._pieces)
            self._pieces.clear()
            end = len(data)
            self._have = 0
        view = memoryview(data)
        start = 0
        out: list[M] = []
        self._need = _LENGTH_BYTES
        while end - start >= _LENGTH_BYTES:
            (length,) = _unpack_length(view, start)
            if length > self._max_bytes:
                raise TooLarge(
                    f"A frame of {length} bytes is over the limit of {self._max_bytes}",
                    "Send large bodies in chunks, within message.max_body_bytes.",
                )
            stop = start + _LENGTH_BYTES + length
            if stop > end:
                self._need = _LENGTH_BYTES + length
                break
            out = self._decode(view[start + _LENGTH_BYTES : stop], out)
            start = stop
            self.frames += 1
        if start < end:
            self._pieces.append(bytes(view[start:]))
            self._have = end - start
        return out

    def _decode(self, frame: memoryview, out: list[M]) -> list[M]:
        """The messages of `frame` behind those in `out`."""
        try:
            messages: list[M] = self._decode_frame(frame)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise BadRequest(f"The frame is no list of messages: {error}", "See clients/PROTOCOL.md.") from None
        except UnicodeDecodeError as error:
            raise BadRequest(f"The frame has text that is not UTF-8: {error.reason}") from None
        if Chunk not in map(type, messages):
            if not out:
                return messages
            out += messages
            return out
        for message in messages:
            if type(message) is Chunk:
                self._collect(message, out)
            else:
                out.append(message)
        return out

    def _collect(self, chunk: Chunk, out: list[M]) -> None:
        stream = self._streams.get(chunk.stream)
        if stream is None:
            self._streams_bytes += chunk.size_bytes
            if self._streams_bytes > self._max_bytes or len(self._streams) >= MAX_STREAMS:
                raise TooLarge(
                    f"A message of {chunk.size_bytes} bytes in chunks: all that are under way may have "
                    f"{self._max_bytes} bytes, and be {MAX_STREAMS}"
                )
            stream = self._streams[chunk.stream] = _Stream(chunk.size_bytes)
        stream.missing -= len(chunk.data)
        self._streams_have += len(chunk.data)
        stream.pieces.append(chunk.data)
        if len(stream.pieces) > MAX_PIECES:
            stream.pieces = [b"".join(stream.pieces)]
        if stream.missing < 0 or not chunk.data:
            raise BadRequest(f"The chunks of stream {chunk.stream} do not add up to the size they name")
        if stream.missing == 0:
            del self._streams[chunk.stream]
            self._streams_bytes -= chunk.size_bytes
            self._streams_have -= chunk.size_bytes
            try:
                message = self._decode_message(b"".join(stream.pieces))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise BadRequest(f"The chunks of stream {chunk.stream} are no message: {error}") from None
            if type(message) is Chunk:
                raise BadRequest("A chunk within chunks")
            out.append(message)


class FrameWriter:
    """Messages to bytes. `push` as things happen, `take` when the transport can write."""

    def __init__(self) -> None:
        # Encodings, an item of one message or of several; measured a third cheaper than encode_into one bytearray.
        self._batch: list[bytes | memoryview] = []
        self._batch_count = 0
        self._batch_bytes = 0
        self._frames: list[bytes] = []
        self._bulk: deque[_Bulk | bytes] = deque()
        self._stream = 0
        self.full = False  # a frame's worth and more waits: whoever goes on pushing should think again

    @property
    def pending(self) -> bool:
        """Whether `take` would give bytes."""
        return bool(self._batch or self._frames or self._bulk)

    def push(self, message: msgspec.Struct) -> None:
        """Add a message to what will be written. One that can't be encoded raises here and harms no other."""
        encoded = _encode(message)
        size_bytes = len(encoded)
        if size_bytes > CHUNK_BYTES:
            self._stream += 1
            self._bulk.append(_Bulk(self._stream, encoded))
            self.full = True
        elif self._bulk and type(message) in _ORDERED:
            self._bulk.append(encoded)
        else:
            self._batch.append(encoded)
            self._batch_count += 1
            self._batch_bytes += size_bytes
            if self._batch_bytes > CHUNK_BYTES:
                self._seal()

    def push_all(self, messages: Sequence[msgspec.Struct]) -> None:
        """Add several. Those that are no large ones, and have none before them, cost less so."""
        count = len(messages)
        if count > 1 and not self._bulk:
            encoded = memoryview(_encode(messages))[_array_bytes(count) :]
            size_bytes = len(encoded)
            if size_bytes <= CHUNK_BYTES:
                self._batch.append(encoded)
                self._batch_count += count
                self._batch_bytes += size_bytes
                if self._batch_bytes > CHUNK_BYTES:
                    self._seal()
                return
        for message in messages:
            self.push(message)

    def _add(self, encoded: bytes) -> None:
        self._batch.append(encoded)
        self._batch_count += 1
        self._batch_bytes += len(encoded)

    def _take_batch(self) -> bytes:
        """The batch as one frame."""
        batch, count, size_bytes = self._batch, self._batch_count, self._batch_bytes
        if count <= _MAX_SHORT:
            head = _pack_short(size_bytes + 1, _SHORT_ARRAY | count)
            taken = head + batch[0] if len(batch) == 1 else head + b"".join(batch)
        else:
            head = (size_bytes + 5).to_bytes(4, "little") + b"\xdd" + count.to_bytes(4, "big")
            taken = b"".join((head, *batch))
        batch.clear()
        self._batch_count = self._batch_bytes = 0
        return taken

    def _seal(self) -> None:
        self._frames.append(self._take_batch())
        self.full = True

    def take(self) -> bytes:
        """What to write next: everything small, and one piece of the first large message. Empty when there is none."""
        if self._bulk:
            self._take_bulk()
        self.full = bool(self._bulk)
        frames = self._frames
        if self._batch:
            if not frames:  # the common case: one small frame
                return self._take_batch()
            self._seal()
            self.full = bool(self._bulk)
        if len(frames) == 1:
            return frames.pop()
        taken = b"".join(frames)
        frames.clear()
        return taken

    def _take_bulk(self) -> None:
        if self._batch:
            self._seal()  # pushed before: the order of frames is the order of pushes
        while self._bulk:
            first = self._bulk[0]
            if isinstance(first, _Bulk):
                self._add(first.next_piece())
                self._seal()
                if first.finished:
                    self._bulk.popleft()
                return
            self._add(first)
            self._bulk.popleft()
            if self._batch_bytes > CHUNK_BYTES:
                self._seal()


class _Bulk:
    """A large message on its way out."""

    __slots__ = ("encoded", "offset", "stream")

    def __init__(self, stream: int, encoded: bytes) -> None:
        self.stream = stream
        self.encoded = encoded
        self.offset = 0

    @property
    def finished(self) -> bool:
        return self.offset >= len(self.encoded)

    def next_piece(self) -> bytes:
        """The next piece, as the encoding of its Chunk."""
        data = self.encoded[self.offset : self.offset + CHUNK_BYTES]
        self.offset += len(data)
        return _encode(Chunk(self.stream, len(self.encoded), data))


def _array_bytes(count: int) -> int:
    """What msgpack says before so many messages: that they are an array."""
    return 1 if count <= _MAX_SHORT else 3 if count < 1 << 16 else 5
