"""The daemon killed at each step that its journal takes: keeping, acking, telling, syncing, moving old messages,
writing a checkpoint, making a segment, reclaiming one. What it has told is so afterwards, at each of them."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

import pytest
from daemons import PATIENCE_S
from oracle import Oracle
from raw import Raw
from steps import Stepping, build

from agentd.wire import messages as wire
from agentd.wire.bodies import Content
from agentd.wire.messages import Accepted, Message, Options, Priority, State

LOW = Options(Priority.LOW, allow_absent=True)
BODY_BYTES = 200_000
ROUNDS = 24

#: Of each thing that it does, a step in the middle.
CHOSEN = [
    "end of Journal.append",
    "end of Journal.note",
    "end of Journal.move",
    "Stored.reached",
    "fdatasync segment",
    "link preparing",
    "half of write checkpoint.tmp",
    "rename checkpoint.tmp",
    "Journal._checkpoint_written",
    "rename segment",
]
#: All that there are: one that is not come to any more says that this sweep proves less than it did.
STEPS = [
    *CHOSEN,
    "Journal.append",
    "Journal.note",
    "Journal.move",
    "end of Stored.reached",
    "Journal._sync",
    "end of Journal._sync",
    "Journal._end_sync",
    "end of Journal._end_sync",
    "Journal._collect",
    "end of Journal._collect",
    "end of Journal._checkpoint_written",
    "allocate reserve",
    "write checkpoint.tmp",
    "fdatasync checkpoint.tmp",
    "fsync directory",
    "rename spare",
    "pwrite64 preparing",
    "half of pwrite64 preparing",
    "fdatasync preparing",
    "unlink preparing",
    "pwrite64 segment",
    "half of pwrite64 segment",
]


class Scene:
    """A daemon, those who use it, and what they know."""

    def __init__(self, directory: Path, library: Path) -> None:
        self.daemon = Stepping(directory, library)
        self.mail, self.stuck = Oracle(), Oracle()
        self.died: set[int] = set()  # ids of dead letters
        self.dying: set[int] = set()  # perhaps not written down
        self.daemon.config(
            journal={"segment_bytes": 1 << 20, "checkpoint_bytes": 300_000, "io_uring": False, "history_bytes": 0},
            rate={"messages_per_s": 0},
            inbox={"max_bytes": 1 << 29},
        )
        assert self.daemon.stop() == 0

    def use(self) -> bool:
        """Mail that is taken at once, and some that nobody takes, for a few rounds. Whether the daemon was gone before
        their end."""
        self.daemon.start()
        with suppress(OSError, EOFError), Raw(self.daemon.socket, "planner") as me:
            with Raw(self.daemon.socket, "sink", take=True) as taker:
                taker.take(1000)
                acked: list[int] = []
                for number in range(ROUNDS):
                    if number % 4 == 0:
                        self._send(me, "stuck", self.stuck, [20_000])
                    self._send(me, "sink", self.mail, [BODY_BYTES, 10, BODY_BYTES])
                    self.mail.acks_are_stored(acked)
                    self.died |= self.dying
                    self.dying.clear()
                    acked = self._settle(taker)
            return False
        return True

    def _send(self, me: Raw, to: str, oracle: Oracle, sizes: list[int]) -> None:
        numbers: dict[int, int] = {}
        verbs = []
        for size_bytes in sizes:
            cid, number = me.number(), oracle.next(size_bytes)
            numbers[cid] = number
            body = number.to_bytes(8, "little") + bytes(size_bytes)
            verbs.append(wire.Send(cid, to, Content.BYTES, body, LOW))

        def told(answer: Accepted) -> None:
            assert answer.state is State.STORED
            oracle.stored(numbers.pop(answer.cid))

        try:
            me.say(*verbs)
            for cid in list(numbers):
                told(me.answer(cid))
        except (OSError, EOFError):
            with suppress(OSError):
                for answer in [*me.seen, *me.rest()]:
                    if isinstance(answer, Accepted) and answer.cid in numbers:
                        told(answer)
            raise

    def _settle(self, taker: Raw) -> list[int]:
        """Three messages: one becomes a dead letter."""
        got = [taker.until(Message) for _ in range(3)]
        numbers = [number_of(message) for message in got]
        self.mail.acks(numbers)
        self.dying.add(got[1].id)
        taker.ask(wire.Reject(0, got[1].id, "not so"))
        taker.ask(wire.Ack(0, [got[0].id, got[2].id]))
        return numbers

    def look(self) -> None:
        """At what is there once it is started anew."""
        self.daemon.live()
        self.daemon.start()
        mail, ids = self._take("sink")
        self.mail.look(mail)
        assert " are lost" not in self.daemon.stderr
        with Raw(self.daemon.socket) as me:
            letters = {letter.id for letter in me.ask(wire.Dead(0, "sink", 1000)).letters}
        assert self.died <= letters, "a dead letter is gone"
        assert self.dying <= letters | ids and not letters & ids, "a message is nowhere, or twice"
        self.died, self.dying = letters, set()
        self.stuck.look(self._take("stuck")[0])
        assert self.daemon.stop() == 0

    def _take(self, name: str) -> tuple[list[int], set[int]]:
        """What waits there; the mail of others than `stuck` is acked."""
        with Raw(self.daemon.socket, name, take=True) as taker:
            taker.take(100_000)
            rows = [agent for agent in taker.ask(wire.Agents(0)).agents if agent.name == name]
            got = [taker.until(Message) for _ in range(sum(row.waiting + row.held for row in rows))]
            numbers = [number_of(message) for message in got]
            if name != "stuck" or len(got) > 20:
                oracle = self.stuck if name == "stuck" else self.mail
                oracle.look(numbers)
                oracle.acks(numbers)
                taker.ask(wire.Ack(0, [message.id for message in got]))
                assert taker.ask(wire.Send(0, "other", Content.TEXT, b"", LOW)).state is State.STORED
                oracle.acks_are_stored(numbers)
                return [], {message.id for message in got}
            return numbers, {message.id for message in got}


def number_of(message: Message) -> int:
    return int.from_bytes(message.body[:8], "little")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("steps"))


@pytest.fixture
def scene(tmp_path: Path, library: Path) -> Scene:
    return Scene(tmp_path, library)


def kill_at(scene: Scene, step: str, hit: int) -> bool:
    """Whether it came there; it is killed in any case."""
    scene.daemon.die_at(step, hit)
    came = scene.use()
    if came and scene.daemon.process is not None:
        assert scene.daemon.process.wait(PATIENCE_S) == -signal.SIGKILL, scene.daemon.stderr
    scene.daemon.kill()
    scene.look()
    return came


def steps_of(scene: Scene, log: Path) -> list[tuple[str, str]]:
    """In their order: the thread, and the step."""
    scene.daemon.die_at("", log=log)
    assert not scene.use()
    scene.daemon.kill()
    scene.look()
    lines = [line.partition(" ") for line in log.read_text().splitlines()]
    return [(thread, step) for thread, _, step in lines if not step.startswith("half of")]


def test_a_step_at_which_the_daemon_dies_loses_nothing(scene: Scene) -> None:
    for step in CHOSEN:
        assert kill_at(scene, step, 2), f"nothing comes to {step!r} twice"
    scene.daemon.close()


def test_a_checkpoint_is_on_disk_before_what_only_the_one_before_needs_goes(scene: Scene, tmp_path: Path) -> None:
    """No kill can show it: what was renamed, or written, and is not synced, a power cut takes."""
    steps = steps_of(scene, tmp_path / "steps")
    written = {number: thread for number, (thread, step) in enumerate(steps) if step == "rename checkpoint.tmp"}
    assert len(written) > 3
    for number, writer in written.items():
        mine = [step for thread, step in steps[:number] if thread == writer and step.endswith("checkpoint.tmp")]
        assert mine[-2:] == ["write checkpoint.tmp", "fdatasync checkpoint.tmp"]
        after = [step for by, step in steps[number + 1 :] if by == writer or step == "Journal._checkpoint_written"]
        assert after[:1] in ([], ["fsync directory"])  # the kill can come between the two
    retired = [number for number, (_, step) in enumerate(steps) if step == "rename segment"]
    assert len(retired) > 3
    for number in retired:
        before = [step for _, step in steps[:number] if step != "rename segment" and "Journal._" in step]
        assert before[-1] == "Journal._checkpoint_written"
        after = [step for thread, step in steps[number:] if thread == steps[number][0] and step != "rename segment"]
        assert after[:1] in ([], ["fsync directory"])  # the kill can come between the two


@pytest.mark.stress
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("hit", [1, 2, 3])
def test_no_step_at_which_the_daemon_dies_loses_anything(scene: Scene, tmp_path: Path, hit: int) -> None:
    known = {step for _, step in steps_of(scene, tmp_path / "steps")}
    known |= {f"half of {step}" for step in known if "write" in step and "." not in step.split()[0]}
    assert not set(STEPS) - set(known), "nothing comes to these any more"
    kills = [kill_at(scene, step, hit) for step in sorted(known)]
    print(f"killed {sum(kills)} times at {len(known)} steps, the {hit}. time")
    scene.daemon.close()
