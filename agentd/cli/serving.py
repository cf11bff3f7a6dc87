"""`agentctl serve`: messages in, a command run for each, its exit status turned into what becomes of the message.

A job is a process with one connection that works on one message at a time; several share the name's mail. The first
process does the work of a single job itself, and for more it forks them and waits. Each ends on Ctrl-C and SIGTERM:
it ends its command and gives the message back, no attempt counted. Jobs whose first process is gone end too.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from agentd.cli import show
from agentd.cli.bodies import NoSuchFile, value_of
from agentd.cli.call import Call
from agentd.wire.errors import BadRequest, NoSuchMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentd_client.blocking import Client, Message

#: A command's exit status for "not now": EX_TEMPFAIL of sysexits.h.
TRY_AGAIN: Final = 75
#: How long a command may take to end on SIGTERM before SIGKILL.
GRACE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 60.0
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGIO)


class Terminated(BaseException):
    """SIGTERM came, or our first process is gone: the orderly end of a service."""


def _terminate(*_: object) -> None:
    raise Terminated


@contextmanager
def _undisturbed() -> Iterator[None]:
    """What is begun here is finished before a signal ends us. Not by blocking signals: a command would inherit that."""
    came: list[int] = []
    before = {signum: signal.signal(signum, lambda signum, _: came.append(signum)) for signum in _ENDING}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if came:
        signal.raise_signal(came[0])


class Server:
    """One `agentctl serve`."""

    def __init__(self, call: Call, command: tuple[str, ...], jobs: int, *, replace: bool) -> None:
        if shutil.which(command[0]) is None:
            raise NoSuchFile(f"The command {command[0]!r} is not there, or can't be run", "Nothing was taken.")
        self._call = call
        self._command = command
        self._jobs = jobs
        self._replace = replace
        self._taking: tuple[int, int] | None = None  # several jobs: a pipe that each holds open while it takes mail

    def run(self) -> int:
        """Serve until told to stop; the exit status."""
        signal.signal(signal.SIGTERM, _terminate)
        try:
            return self._work(self._announce) if self._jobs == 1 else self._fork()
        except Terminated:
            return 0

    def _announce(self) -> None:
        show.warn(f"agentctl: serving as {self._call.name}; Ctrl-C ends it.")

    def _work(self, ready: Callable[[], None]) -> int:
        """One job, in this process."""
        with self._call.connect(take=True, share=self._jobs > 1, replace=self._replace) as me:
            me.status()  # the first answer: a name that is in use is told before anything is served
            ready()
            while True:
                message = me.receive()
                if message is not None:
                    Task(self._call, me, message, self._outlast).run(self._command)

    def _outlast(self) -> None:
        """Wait until no other job takes mail: what is given back must not end up with one that is about to end."""
        if self._taking is not None:
            outlet, inlet = self._taking
            os.close(inlet)
            select.select([outlet], [], [], GRACE_S)

    def _fork(self) -> int:
        """As many jobs as processes; ends when one ends."""
        self._taking = os.pipe()
        pids: set[int] = set()
        held: list[int] = []  # a pipe to each, on which nothing is written: its end is our end
        try:
            for _ in range(self._jobs):
                outlet, inlet = os.pipe()
                lifeline, end = os.pipe()
                held.append(end)
                pid = os.fork()
                if pid == 0:
                    for fd in (*held, outlet):
                        os.close(fd)
                    pids.clear()  # they are not ours
                    _end_with(lifeline)
                    return self._work(lambda ready=inlet: os.close(_told(ready)))  # type: ignore[misc]
                pids.add(pid)
                os.close(inlet)
                os.close(lifeline)
                is_ready = os.read(outlet, 1)
                os.close(outlet)
                if not is_ready:
                    break
            else:
                self._announce()
            os.close(self._taking[1])
            ended, status = os.wait()
            pids.discard(ended)
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        finally:
            _stop(pids)


def _told(ready: int) -> int:
    os.write(ready, b".")
    return ready


def _end_with(lifeline: int) -> None:
    """Have SIGIO end this process when the other end of `lifeline` closes."""
    signal.signal(signal.SIGIO, _terminate)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _stop(pids: set[int]) -> None:
    with _undisturbed():
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        for pid in pids:
            os.waitpid(pid, 0)


class Task:
    """One message and the command that works on it."""

    def __init__(self, call: Call, me: Client, message: Message, outlast: Callable[[], None]) -> None:
        self._call = call
        self._me = me
        self._message = message
        self._outlast = outlast

    def run(self, command: tuple[str, ...]) -> None:
        """Run the command to its end, or to ours."""
        child = last_words = None
        began = time.monotonic()
        try:  # from here on an interrupted task gives its message back
            last_words = LastWords()
            self._message.working()
            with _undisturbed():
                child = self._start(command, last_words.inlet)
                last_words.begin()
            output, _ = child.communicate(self._message.body)
        except OSError as error:
            self._me.give_back(self._message.id)
            raise NoSuchFile(
                f"The command {command[0]!r} can't be run: {error.strerror}", "The message was given back."
            ) from None
        except BaseException:
            with _undisturbed():
                if child is None or last_words is None or _end(child):
                    self._outlast()
                    self._me.give_back(self._message.id)
                    self._tell("given back", None, began)
                else:  # it was done before, and others that it left behind held its output open
                    output, _ = child.communicate()
                    self._settle(child.returncode, output, last_words.wait(), began)
            raise
        with _undisturbed():
            self._settle(child.returncode, output, last_words.wait(), began)

    def _start(self, command: tuple[str, ...], stderr: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=os.environ | self._about(),
            start_new_session=True,  # so that it is ended by us, with all that it started, not by the terminal
        )

    def _about(self) -> dict[str, str]:
        return {
            "AGENTD_MESSAGE_ID": self._message.id,
            "AGENTD_SENDER": self._message.sender,
            "AGENTD_AGENT": str(self._call.name),
            "AGENTD_ATTEMPT": str(self._message.attempt),
            "AGENTD_CONTENT": str(self._message.content),
        }

    def _settle(self, status: int, output: bytes, reason: str, began: float) -> None:
        try:
            done = self._settled(status, output, reason)
        except NoSuchMessage as error:  # it expired meanwhile, or somebody else settled it
            done = error.message
        self._tell(done, status, began)

    def _settled(self, status: int, output: bytes, reason: str) -> str:
        """What becomes of the message, in one word."""
        message = self._message
        if status == 0 and message.wants_reply:
            try:
                self._me.reply(message.id, value_of(output), timeout=self._call.patience_s)
            except BadRequest as error:
                self._me.reject(message.id, f"its reply can't be sent: {error.message}")
                return "rejected"
            return "replied"
        if status == 0:
            self._me.ack(message.id)
            return "acked"
        if status == TRY_AGAIN:
            pause_s = min(LONGEST_PAUSE_S, 2.0 ** (message.attempt - 1))
            self._me.nack(message.id, reason or "not now", after=pause_s)
            return "nacked"
        how = f"exit {status}" if status > 0 else f"killed by {signal.Signals(-status).name}"
        self._me.reject(message.id, f"{how}: {reason}" if reason else how)
        return "rejected"

    def _tell(self, done: str, status: int | None, began: float) -> None:
        message = self._message
        took_s = time.monotonic() - began
        if self._call.as_json:
            told: dict[str, Any] = {"id": message.id, "sender": message.sender, "done": done}
            show.emit(told | {"exit": status, "took_s": round(took_s, 3)})
        else:
            word = show.paint(done, "red" if status else "green")
            how = [] if status is None else [f"exit {status}"]
            show.say(show.GAP.join([word, message.id, f"from {message.sender}", *how, show.span(took_s)]))


def _end(child: subprocess.Popen[bytes]) -> bool:
    """End the command and all that it started; whether it still ran."""
    ran = child.poll() is None
    for signum in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, signum)
            child.wait(GRACE_S)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
    return ran


class LastWords:
    """A command's stderr: passed on as it comes, its last line kept as the reason of a failure."""

    def __init__(self) -> None:
        self._outlet, self.inlet = os.pipe()
        self._last = b""
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        with open(self._outlet, "rb") as outlet:
            for line in outlet:
                self._last = line.strip() or self._last
                show.warn(line.decode("utf-8", "backslashreplace").rstrip("\n"))

    def begin(self) -> None:
        """The command has its own copy now: where that is closed is the end."""
        inlet, self.inlet = self.inlet, -1
        if inlet >= 0:
            os.close(inlet)

    def wait(self) -> str:
        """Wait for its end; the last line."""
        self.begin()
        self._thread.join()
        return show.cell(self._last.decode("utf-8", "backslashreplace"))[-500:]
