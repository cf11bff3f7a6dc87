"""`agentctl serve`: messages in, a command run for each, its exit status turned into what becomes of the message.

One thread and one connection a job; they share the name's mail. The main thread only waits: for the first thread that
fails, for Ctrl-C or for SIGTERM. Then the commands are ended and what they worked on goes back into the inbox.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from agentd.cli import show
from agentd.cli.bodies import NoSuchFile, value_of
from agentd.cli.call import Call
from agentd.wire.errors import BadRequest, NoSuchMessage

if TYPE_CHECKING:
    from agentd_client.blocking import Client, Message

#: A command's exit status for "not now": EX_TEMPFAIL of sysexits.h.
TRY_AGAIN: Final = 75
#: How long a command may take to end on SIGTERM before SIGKILL.
GRACE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 60.0


class Terminated(BaseException):
    """SIGTERM came: the orderly end of a service."""


class Server:
    """The jobs of one `agentctl serve`."""

    def __init__(self, call: Call, command: tuple[str, ...], jobs: int, *, replace: bool) -> None:
        self.call = call
        self.command = command
        self.events: SimpleQueue[BaseException | None] = SimpleQueue()  # None: one more job takes messages
        self.stopping = False
        if shutil.which(command[0]) is None:
            raise NoSuchFile(f"The command {command[0]!r} is not there, or can't be run", "Nothing was taken.")
        self.jobs = [
            Job(self, call.connect(take=True, share=jobs > 1, replace=replace and not number)) for number in range(jobs)
        ]

    def run(self) -> int:
        """Serve until told to stop."""
        signal.signal(signal.SIGTERM, _terminate)
        try:
            for job in self.jobs:
                job.thread.start()
            for _ in self.jobs:
                self._next_event()
            show.warn(f"agentctl: serving as {self.call.name}; Ctrl-C ends it.")
            self._next_event()
            return 0
        except Terminated:
            return 0
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._stop()

    def _next_event(self) -> None:
        if (failure := self.events.get()) is not None:
            raise failure

    def _stop(self) -> None:
        self.stopping = True
        deadline = time.monotonic() + GRACE_S
        for job in self.jobs:
            job.end_command(signal.SIGTERM)
        for job in self.jobs:
            if not job.idle.wait(max(0.0, deadline - time.monotonic())):
                job.end_command(signal.SIGKILL)
                job.idle.wait(GRACE_S)


def _terminate(*_: object) -> None:
    raise Terminated


class Job:
    """One connection that takes a message at a time, and the command that works on it."""

    def __init__(self, server: Server, me: Client) -> None:
        self.server = server
        self.me = me
        self.idle = threading.Event()  # holds no message that it must still give back
        self.idle.set()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # between starting a command and ending it

    def _run(self) -> None:
        try:
            with self.me:
                self.me.status()  # the first answer: a name that is in use is told before anything is served
                self.server.events.put(None)
                while not self.server.stopping:
                    message = self.me.receive()
                    if message is not None:
                        self.idle.clear()
                        self._handle(message)
                        self.idle.set()
        except BaseException as error:
            self.server.events.put(error)
        finally:
            self.idle.set()

    def end_command(self, signum: int) -> None:
        """Send a signal to the command and all that it started."""
        with self._lock:
            if self._child is not None and self._child.poll() is None:
                os.killpg(self._child.pid, signum)

    def _handle(self, message: Message) -> None:
        began = time.monotonic()
        last_words = LastWords()
        try:
            child = self._start(message, last_words)
            if child is None:
                self.me.give_back(message.id)
                return
            output, _ = child.communicate(message.body)
        except OSError as error:
            self.me.give_back(message.id)
            raise NoSuchFile(
                f"The command {self.server.command[0]!r} can't be run: {error.strerror}", "The message was given back."
            ) from None
        finally:
            reason = last_words.end()
        with self._lock:
            self._child = None
        try:
            done = self._settle(message, child.returncode, output, reason)
        except NoSuchMessage as error:  # it expired meanwhile, or somebody else settled it
            done = error.message
        self._tell(message, done, child.returncode, time.monotonic() - began)

    def _start(self, message: Message, last_words: LastWords) -> subprocess.Popen[bytes] | None:
        about = {
            "AGENTD_MESSAGE_ID": message.id,
            "AGENTD_SENDER": message.sender,
            "AGENTD_AGENT": str(self.server.call.name),
            "AGENTD_ATTEMPT": str(message.attempt),
            "AGENTD_CONTENT": str(message.content),
        }
        with self._lock:
            if self.server.stopping:
                return None
            message.working()
            self._child = subprocess.Popen(
                self.server.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=last_words.inlet,
                env=os.environ | about,
                start_new_session=True,  # so that it is ended by us, with all that it started, not by the terminal
            )
            return self._child

    def _settle(self, message: Message, status: int, output: bytes, reason: str) -> str:
        """What becomes of the message, in one word."""
        if self.server.stopping:
            self.me.give_back(message.id)
            return "given back"
        if status == 0 and message.wants_reply:
            try:
                message.reply(value_of(output), timeout=self.server.call.patience_s)
            except BadRequest as error:
                message.reject(f"its reply can't be sent: {error.message}")
                return "rejected"
            return "replied"
        if status == 0:
            self.me.ack(message.id)
            return "acked"
        if status == TRY_AGAIN:
            pause_s = min(LONGEST_PAUSE_S, 2.0 ** (message.attempt - 1))
            message.nack(reason or "not now", after=pause_s)
            return "nacked"
        how = f"exit {status}" if status > 0 else f"killed by {signal.Signals(-status).name}"
        message.reject(f"{how}: {reason}" if reason else how)
        return "rejected"

    def _tell(self, message: Message, done: str, status: int, took_s: float) -> None:
        if self.server.call.as_json:
            told: dict[str, Any] = {"id": message.id, "sender": message.sender, "done": done}
            show.emit(told | {"exit": status, "took_s": round(took_s, 3)})
        else:
            colour = "red" if status else "green"
            show.say(
                f"{show.paint(done, colour)}  {message.id}  from {message.sender}  exit {status}  {show.span(took_s)}"
            )


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
                if sys.stderr is not None:
                    show.warn(line.decode("utf-8", "backslashreplace").rstrip("\n"))

    def end(self) -> str:
        """Wait for its end; the last line."""
        os.close(self.inlet)
        self._thread.join()
        return show.cell(self._last.decode("utf-8", "backslashreplace"))[-500:]
