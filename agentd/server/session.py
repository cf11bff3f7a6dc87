"""A session on a socket: bytes in, verbs to their handlers, what the hub says back out as bytes.

The way of a message:

    NORMAL:  agent -> frame -> session -> handlers -> lane -> router -> inbox -> session -> frame -> agent
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any, cast

from agentd.host.process import command_of
from agentd.server.alertness import FLOW_BYTES
from agentd.server.reaper import Peer, last_words, peer_of
from agentd.server.served import ServedSession
from agentd.server.texting import Texting
from agentd.wire import ndjson, text
from agentd.wire.errors import AgentdError, BadRequest, Busy
from agentd.wire.frames import MAGIC, FrameReader, FrameWriter
from agentd.wire.messages import ClientMessage, DaemonMessage, Error, Message
from agentd.wire.ndjson import LineReader, LineWriter
from agentd.wire.text import TextFace

if TYPE_CHECKING:
    from agentd.server.server import Server

log = logging.getLogger(__name__)

Reader = FrameReader[Any] | LineReader | TextFace


class SocketSession(asyncio.BufferedProtocol, ServedSession):
    """One connection, from accept to the end of its process or its socket, whichever is first."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.writer: FrameWriter | LineWriter | TextFace = FrameWriter()
        self.paused = False
        self._reader: Reader | None = None
        self._texting: Texting | None = None  # on the text face
        self._transport: asyncio.Transport
        self._pidfd: int | None = None
        self._fd: int | None = None  # the socket's own, while the session lasts: later it may be another's
        self._late: asyncio.TimerHandle | None = None
        self._owed = 0  # how much it has said of a frame whose end is still to come

    # The connection's life.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Before a byte is read: whose process is this?"""
        transport = cast(asyncio.Transport, transport)  # uvloop's does not derive from it
        self._transport = transport
        sock = transport.get_extra_info("socket")
        peer = peer_of(sock)
        if peer.uid != self.server.uid:
            log.warning(
                "refused a connection of uid %d (pid %d): agentd serves uid %d", peer.uid, peer.pid, self.server.uid
            )
            self.closed = True
            transport.abort()
            return
        self.pid = peer.pid
        self._identify(peer)
        limits = self.server.config.connections
        self._late = self.server.loop.call_later(limits.hello_s, self._check_hello)
        if not self.server.admit(self):
            return
        self._pidfd = self.server.reaper.watch(sock, peer.pid, self._process_gone)
        self._fd = sock.fileno()
        # Past the high-water mark the client is not reading: then it is not read either, so nothing piles up.
        transport.set_write_buffer_limits(high=limits.max_unread_bytes)

    @property
    def pidfd(self) -> int | None:
        """The process behind it; None where the kernel knows none."""
        return self._pidfd

    def _identify(self, peer: Peer) -> None:
        self.command = command_of(peer.pid)
        self.provenance = f"uid {peer.uid} pid {peer.pid}" + (f" ({self.command})" if self.command else "")

    def _check_hello(self) -> None:
        """A client that does not say who it is may not wait for ever."""
        self._late = None
        self.close(f"no hello within {self.server.config.connections.hello_s:g} s")

    def hello_said(self) -> None:
        """The client is a client."""
        super().hello_said()
        self.server.crowding.greeted(self)
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _owe(self, reader: Reader) -> None:
        """The client has begun a frame, or ended it."""
        if self.closed:
            return
        owed = reader.unfinished_bytes
        if owed != self._owed:
            self._owed = owed
            self.server.crowding.owes(self, owed, self.server.now())
        if self._late is None and owed and not self.closed:
            self._expect_frame(reader)

    def _expect_frame(self, reader: Reader) -> None:
        """The client owes the rest of a frame: look again when it must have come."""
        frames = reader.frames
        self._late = self.server.loop.call_later(
            self.server.config.connections.frame_s, lambda: self._check_frame(reader, frames)
        )

    def _check_frame(self, reader: Reader, frames: int) -> None:
        self._late = None
        if not reader.unfinished:
            return
        if self.paused or self.held_up or reader.frames != frames:  # it goes on; or it is us who do not read it
            self._expect_frame(reader)
        else:
            self.close(f"no end of a frame within {self.server.config.connections.frame_s:g} s")

    def _process_gone(self) -> None:
        self._hear_out(f"pid {self.pid} is gone")

    def _hear_out(self, why: str) -> None:
        """Nobody is there any more. It can have ended before a byte of it was read, as a shell's `nc` does: what it
        wrote counts all the same."""
        if self.closed:
            return
        self.gone = True
        data = last_words(self._transport.get_extra_info("socket"))
        if data:
            self.data_received(data)
        self.do_the_rest()
        self.close(why)

    def connection_lost(self, error: Exception | None) -> None:
        """The socket's end."""
        self.close("gone" if error is None else f"gone: {error}")
        if self._late is not None:
            self._late.cancel()
        self.server.socket_closed(self)

    def close(self, why: str, *, error: AgentdError | None = None) -> None:
        """End the session, telling the client why if it can still be told."""
        if self.closed:
            return
        if error is not None and self._reader is not None:  # or nobody knows which face it would be told on
            self.push(Error(0, error.code, error.message, error.hint, error.retryable, error.retry_after))
        self.send_pending()
        self.closed = True
        self._fd = None
        self.wait_no_more()
        if self._texting is not None:
            self._texting.close()
        self.server.crowding.gone(self)
        if self._late is not None:
            self._late.cancel()
        if self._pidfd is not None:
            self.server.reaper.unwatch(self._pidfd)
            self._pidfd = None
        self.server.closing.add(self)
        if self.paused:  # it does not read: what is left could only wait for ever
            self._transport.abort()
        else:
            self._transport.close()
            if self._transport.get_write_buffer_size():
                self._late = self.server.loop.call_later(self.server.config.connections.hello_s, self._transport.abort)
        self.server.session_gone(self, why)

    # In.

    def get_buffer(self, sizehint: int) -> bytearray:
        """Where to read to: one for all, since what is read is made into verbs at once. No larger than what can be
        decoded without holding up the others."""
        return self.server.read_buffer

    def buffer_updated(self, count: int) -> None:
        """So much was read."""
        if count >= FLOW_BYTES and self.server.alertness is not None:
            self.server.alertness.much_came(self.server.now())
        self.data_received(self.server.read_view[:count])

    def data_received(self, data: bytes | memoryview) -> None:
        """Bytes from the client, of which none is kept in place."""
        if self.closed:
            return
        try:
            if self._reader is None:
                data = self._open_face(data)
            assert self._reader is not None
            reader = self._reader
            verbs = reader.feed(data) if isinstance(reader, FrameReader) else reader.feed(bytes(data))
        except AgentdError as error:
            log.warning("%s: %s", self.provenance, error.message)
            self.close("protocol violation", error=error)
            return
        self.take_in(verbs)
        if self._texting is not None:
            self._texting.look()
        if self._reader.unfinished or self._owed:
            self._owe(self._reader)

    def stop_reading(self) -> None:
        """Leave in the socket what comes, so that its sender has to wait."""
        self._transport.pause_reading()

    def read_on(self) -> None:
        """Read the socket again."""
        if self._texting is None or not self._texting.crowded:
            self._transport.resume_reading()

    def eof_received(self) -> bool:
        """It says no more. On the text face, `printf ... | nc -N`, it still waits for its answers."""
        return self._texting is not None and not self.closed and self._texting.end_of_input()

    def _open_face(self, data: bytes | memoryview) -> bytes | memoryview:
        """The first byte tells which face the client speaks."""
        first = data[0]
        max_body = self.server.config.message.max_body_bytes
        if first == MAGIC:
            self._reader = FrameReader(ClientMessage, max_body)
            data = data[1:]
        elif first in text.FIRST:
            self._reader = self.writer = TextFace(max_body)
            self._texting = Texting(self, self._reader)
        else:
            self._reader = LineReader(max_body)
            self.writer = LineWriter()
            if first != ndjson.FIRST:
                raise BadRequest(
                    f"A connection begins with the byte 0x{MAGIC:02x}, '{{' or a letter, not with 0x{first:02x}",
                    "See clients/PROTOCOL.md.",
                )
        if self not in self.server.sessions:
            raise Busy(
                f"agentd has {len(self.server.sessions)} connections, the most it may have",
                "connections.max_connections and the limit of open files (ulimit -n) bound them.",
            )
        return data

    # Out.

    def write(self, message: DaemonMessage) -> None:
        """Queue a message; the server sends it at the end of this turn."""
        if not self.closed:
            writer = self.writer
            writer.push(message)
            if writer.full:
                self.full = self.look = True
            if self._texting is not None:
                self._texting.look()
            if not self.dirty:
                self.dirty = True
                self.server.dirty.append(self)

    def write_all(self, messages: list[Message]) -> None:
        """Queue several."""
        writer = self.writer
        if type(writer) is not FrameWriter:
            super().write_all(messages)
        elif not self.closed:
            writer.push_all(messages)
            if writer.full:
                self.full = self.look = True
            if not self.dirty:
                self.dirty = True
                self.server.dirty.append(self)

    def write_now(self) -> None:
        """What the face itself had to say, without anybody's turn."""
        if self.writer.pending and not self.closed:
            self.send_pending()

    @property
    def unsent(self) -> bool:
        """Whether something waits for room in the transport."""
        return self.writer.pending

    def send_pending(self) -> None:
        """Hand to the transport what it has room for. The rest, pieces of large messages first of all, waits."""
        if self._run is not None:
            self.end_run()
        self.dirty = False
        transport, take = self._transport, self.writer.take
        while not self.paused and (data := take()):
            # Written here and now: uvloop's transport would do it at the end of the loop's turn.
            if self._fd is not None and not transport.get_write_buffer_size():
                try:
                    data = data[os.write(self._fd, data) :]
                except (BrokenPipeError, ConnectionResetError):
                    self.paused = True  # the transport would end it before what it wrote is done
                    self.server.loop.call_soon(self._hear_out, "it reads no more")
                    return
                except OSError:
                    pass  # full: the transport waits
            if data:
                transport.write(data)

    def pause_writing(self) -> None:
        """The client does not read: send it nothing more, read nothing more of it."""
        self.paused = self.stalled = True
        self.stop_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        self.paused = self.stalled = False
        if self.closed:
            return
        if self.held_up:
            self.server.loop.call_soon(self.go_on)
        else:
            self.read_on()
        self.send_pending()
        self.hand_more()
