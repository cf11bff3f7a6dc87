"""The blocking side of a conversation: one plain socket, read and written only inside a call."""

from __future__ import annotations

import _socket as socket  # what the socket module wraps: all that is used here, and 4 ms less of agentctl's start
from _thread import get_ident
from collections.abc import Callable, Iterator
from select import POLLIN, POLLOUT, poll
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

from agentd.wire.errors import AgentdError
from agentd_client._joining import no_daemon, pauses
from agentd_client.receipt import Steps

if TYPE_CHECKING:
    from agentd_client._conversation import Conversation

T = TypeVar("T")

_SAY_NOW: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL

#: Where the last answer came so soon, the next one is looked for as long before this thread sleeps: to be woken takes
#: longer than agentd does. With 100 µs and more, who waits for another agent keeps that one from its core: a round trip
#: between three processes on two cores was a fifth longer, with 200 twice as long.
_QUICK_S: Final = 80e-6

#: After so many looks in vain, one of a thousand waits begins with another.
_MOST_IN_VAIN: Final = 10

#: Kept for reading: a fresh buffer for each read would be mapped and unmapped by the allocator each time.
_READ_BYTES: Final = 64 * 1024


class Plug:
    """One client's socket. Where it is lost, the next call that needs it connects again."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._conversation: Conversation[Any, Any]
        self._socket: socket.socket | None = None
        self._readable = poll()
        self._both = poll()
        self._unwritten = b""
        self._pauses: Iterator[float] | None = None
        self._next_try = 0.0
        self._thread = 0
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._is_quick = False  # it answered within _QUICK_S
        self._looks_in_vain = 0  # in a row
        self._waits_without_look = 0  # that are still to come
        self._watched: dict[int, Callable[[], None]] = {}
        self._later: list[Callable[[], None]] = []

    def open(self, conversation: Conversation[Any, Any]) -> None:
        """Connect for the first time; Unreachable at once where no daemon is."""
        self._conversation = conversation
        self._thread = get_ident()
        try:
            self._connect()
        except OSError as error:
            raise no_daemon(self._path, error) from None

    def _connect(self) -> None:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.connect(self._path)
        except BaseException:
            connected.close()
            raise
        self._socket = connected
        self._readable.register(connected, POLLIN)
        self._both.register(connected, POLLIN | POLLOUT)
        self._conversation.connected()

    def close(self) -> None:
        """End the connection. What was said and not written is not written any more."""
        if self._socket is not None:
            gone, self._socket = self._socket, None
            self._readable.unregister(gone)
            self._both.unregister(gone)
            gone.close()
        self._unwritten = b""

    def _lost(self, reason: str) -> None:
        if self._conversation.ready:
            self._pauses = None
        self.close()
        self._conversation.lost(reason)

    def watch(self, fd: int, action: Callable[[], None]) -> None:
        """Call it when the descriptor is readable, inside the next call that waits."""
        self._watched[fd] = action
        self._readable.register(fd, POLLIN)
        self._both.register(fd, POLLIN)

    def unwatch(self, fd: int) -> None:
        """No more."""
        if self._watched.pop(fd, None) is not None:
            self._readable.unregister(fd)
            self._both.unregister(fd)

    def soon(self, action: Callable[[], None]) -> None:
        """In the thread of this client: at once, or inside its next call."""
        if get_ident() == self._thread:
            action()
        else:
            self._later.append(action)

    def check_thread(self) -> None:
        """A socket that two threads read is a riddle; say so instead."""
        if get_ident() != self._thread:
            raise RuntimeError("A blocking client belongs to the thread that entered it: connect once a thread")

    def drive(self, steps: Steps[T]) -> T:
        """Go through a verb's steps, reading and writing while there is something to wait for."""
        self.check_thread()
        while self._later:
            self._later.pop(0)()
        self._look()
        try:
            while True:
                call, until = next(steps)
                while not call.settled and (until is None or monotonic() < until):
                    self._turn(until)
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            steps.close()

    def _look(self) -> None:
        """Between two calls the daemon may have gone: better to know before something is said to nobody."""
        if self._socket is not None and (self._wait(self._readable, 0.0) if self._watched else self._readable.poll(0)):
            try:
                self._read_ready()
            except OSError as error:
                self._lost(str(error))

    def _turn(self, until: float | None) -> None:
        """One step of waiting: write what is to be written, then wait for something to read."""
        if self._socket is None:
            self._reconnect(until)
            return
        try:
            if not self._write():
                self._wait(self._both, until)
                self._read_ready()
            elif self._wait_for_answer(until):
                self._take_in(self._socket.recv_into(self._buffer))
        except OSError as error:
            self._lost(str(error))

    def _wait_for_answer(self, until: float | None) -> bool:
        """Whether there is something to read."""
        began = monotonic()
        found = False
        if self._waits_without_look:
            self._waits_without_look -= 1
        elif self._is_quick:
            found = self._look_for_answer(began)
        is_there = (found and not self._watched) or self._wait(self._readable, until)
        self._is_quick = monotonic() - began < _QUICK_S
        return is_there

    def _look_for_answer(self, began: float) -> bool:
        """For a while; whether something is there. Who looks in vain may keep agentd from the core that both are on,
        and looks less and less."""
        look = self._readable.poll
        while not look(0):
            if monotonic() - began >= _QUICK_S:
                self._looks_in_vain = min(self._looks_in_vain + 1, _MOST_IN_VAIN)
                self._waits_without_look = 1 << self._looks_in_vain
                return False
        self._looks_in_vain = 0
        return True

    def _wait(self, polled: poll, until: float | None) -> bool:
        found = polled.poll(None if until is None else max(0.0, until - monotonic()) * 1000)
        if not self._watched:
            return bool(found)
        for fd, _ in found:
            if (action := self._watched.get(fd)) is not None:
                action()
        return self._socket is not None and any(fd == self._socket.fileno() for fd, _ in found)

    def _write(self) -> bool:
        """Write what the kernel takes; whether that was all."""
        conversation = self._conversation
        assert self._socket is not None
        data = self._unwritten or conversation.take()
        while data:
            try:
                sent = self._socket.send(data, _SAY_NOW)
            except BlockingIOError:
                sent = 0
            self._unwritten = data[sent:]
            if self._unwritten:
                return False
            data = conversation.take() if conversation.out.more else b""
        return True

    def _read_ready(self) -> None:
        """Take in what has come already."""
        assert self._socket is not None
        try:
            count = self._socket.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        self._take_in(count)

    def _take_in(self, count: int) -> None:
        if not count:
            self._lost("")
            return
        try:
            self._conversation.feed(self._buffer[:count])
        except AgentdError as error:
            self._lost(f"it does not speak the protocol: {error.message}")

    def flush(self) -> None:
        """Take in the answers that are there, and write what the kernel takes; waits for nothing."""
        self._look()
        self.say()

    def say(self) -> None:
        """Write what the kernel takes without waiting; answers are for the next call."""
        if self._socket is None:
            return
        try:
            self._write()
        except OSError as error:
            self._lost(str(error))

    def _reconnect(self, until: float | None) -> None:
        """Try again, later each time."""
        now = monotonic()
        if self._pauses is None:
            self._pauses = pauses()
            self._next_try = now + next(self._pauses)
        end = self._next_try if until is None else min(self._next_try, until)
        self._wait(self._readable, end)  # sleeps, but for what else is watched
        if monotonic() < self._next_try:
            return
        self._next_try = monotonic() + next(self._pauses)
        try:
            self._connect()
        except OSError:
            pass
