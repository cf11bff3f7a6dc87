"""A plain thread's side of a direct lane: receiver(), and the thread that on_critical() makes."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from inspect import isawaitable, iscoroutinefunction
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from agentd.wire import grants, records
from agentd.wire.errors import NotOnThisLane
from agentd_client._pairs import DirectRecord
from agentd_client.message import failure

if TYPE_CHECKING:
    from agentd_client._options import FilePath, Progress
    from agentd_client._reading import Reading

log = logging.getLogger("agentd_client")

#: While a handler's thread runs, other Python threads give way to it so soon; usually they keep the interpreter 5 ms.
_SWITCH_S: Final = 100e-6
_FIFO_PRIORITY: Final = 1


class ThreadMessage(DirectRecord):
    """A message in a thread that reads a direct lane; its verbs but save() wait for nothing. `with message:` acks on a
    clean exit and nacks on an exception."""

    __slots__ = ()

    def save(
        self,
        path: FilePath,
        *,
        replace: bool = False,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> str:
        """Have the file that it offers sent, and written to `path`, or into that directory under its own name; where it
        lies then, whole. Waits for that. FileExistsError where another would be lost, unless it may be replaced. What
        fails leaves nothing there, and its sender hears why. It does not ack."""
        from agentd_client._saving import save

        return save(self, path, replace, timeout, progress, in_loop=False).in_thread()

    def ack(self) -> None:
        """Done with it."""
        self.finish(records.ACKED)

    def nack(self, reason: str = "", after: float = 0.0) -> None:
        """Could not do it. It does not come back: on this lane that is its end."""
        self.refuse_delay(after)
        self.finish(records.DIED, reason or "nacked")

    def reject(self, reason: str = "") -> None:
        """Never."""
        self.finish(records.DIED, reason or "rejected")

    def working(self) -> None:
        """Nothing waits for that on this lane."""

    def reply(self, body: object) -> None:
        """Answer a request, and ack it."""
        if not self.wants_reply or self.settled:
            raise NotOnThisLane(
                f"Nobody waits for a reply to message {self.id}",
                "Ack it, and send its sender a message of its own.",
            )
        self.answer(body)

    def __enter__(self) -> ThreadMessage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish(records.ACKED)
        else:
            self.finish(records.DIED, failure(error))


class Receiver:
    """The lane's one reader, in one thread at a time. `receive`, `receive_bytes` and `drain` are the native ones."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        mailbox = reading.mailbox
        self.receive: Callable[..., ThreadMessage | None] = mailbox.receive
        self.receive_bytes: Callable[..., bytes | None] = mailbox.receive_bytes
        self.drain: Callable[[int], list[ThreadMessage]] = mailbox.drain
        self.drain_bytes: Callable[[int], list[bytes]] = mailbox.drain_bytes
        reading.occupy(self)
        mailbox.shut = False
        mailbox.makes(ThreadMessage)
        reading.may_look()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the lane back to inbox()."""
        reading = self._reading
        if reading.reader is self:
            reading.tell_measured()
            self.receive = self.receive_bytes = self.drain = self.drain_bytes = _closed
            reading.mailbox.shut = True  # for a thread that is just about to wait
            reading.leave_alone()  # or inbox() would find another thread in there
            reading.vacate(self)

    stop = close


def _closed(*_: object, **__: object) -> Any:
    raise RuntimeError("This receiver is closed")


class Handler:
    """on_critical()'s thread: pinned to a core of its own, it calls the handler with each message."""

    def __init__(self, reading: Reading, handle: Any, pin: bool) -> None:
        if iscoroutinefunction(handle) or not callable(handle):
            raise TypeError(f"on_critical() takes a plain function, which its thread calls, not {handle!r}")
        self._reading = reading
        self._handle = handle
        self._pin = pin
        self._over = False
        self._receiver = Receiver(reading)
        reading.reader = self
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(min(self._interval, _SWITCH_S))
        self._thread = threading.Thread(target=self._run, name="agentd-critical", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        reading = self._reading
        reading.direct.welcomed.wait()  # before that nobody can send here
        cores, about = self._settle_down() if self._pin else ("any", "not pinned")
        reading.pinned = grants.Pinned(reading.number, cores, about)
        reading.direct.watcher.say(reading.pinned)
        receive = self._receiver.receive
        mailbox = reading.mailbox
        handle = self._handle
        while not self._over:
            try:
                message = receive()
            except ValueError:  # closed: the client has left
                return
            if message is None:
                continue
            try:
                if isawaitable(awaited := handle(message)):
                    close = getattr(awaited, "close", None)
                    if close is not None:
                        close()
                    raise TypeError("the handler of on_critical() returned an awaitable, which nobody awaits there")
            except BaseException as error:  # sys.exit() in a handler ends no process: it is a message that was not done
                log.exception("on_critical: %s raised for message %s", handle, message.id)
                message.finish(records.DIED, failure(error))
            else:
                message.finish(records.ACKED)
            if mailbox.sampled:
                reading.tell_measured()

    def _settle_down(self) -> tuple[str, str]:
        """Onto one of the fast cores that we may use, the last: the first has the interrupts, often."""
        direct = self._reading.direct
        mine = os.sched_getaffinity(0)
        usable = [core for core in direct.cores if core in mine]
        if len(mine) < 2 or not usable:
            return "any", "only one core" if len(mine) < 2 else "none of the fast cores is allowed"
        core = usable[-1]
        try:
            os.sched_setaffinity(0, {core})
        except OSError as error:
            return "any", f"pinning: {error.strerror}"
        return str(core), ", ".join(filter(None, (direct.about_cores, _be_urgent())))

    def close(self, timeout: float) -> None:
        """End the thread, after the message it is at, which may take so long."""
        self.stop()
        until = monotonic() + timeout
        while self._thread.is_alive() and monotonic() < until:
            self._reading.mailbox.interrupt()
            self._thread.join(0.01)

    def stop(self) -> None:
        """The same, without waiting: a handler may itself wait for the thread that calls this."""
        if not self._over:
            self._over = True
            self._reading.direct.welcomed.set()
            self._reading.mailbox.interrupt()
            sys.setswitchinterval(self._interval)


def _be_urgent() -> str:
    """Real-time scheduling, where the limits allow it."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_FIFO_PRIORITY))
    except OSError:
        return ""
    return "SCHED_FIFO"
