"""The daemon's journal over a real one on disk, with a sync that ends when the test says so: who is told what, when."""

from __future__ import annotations

import asyncio
import errno
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import FakeSession, World

from agentd import _native
from agentd.host.config import JournalSettings
from agentd.server import journal, syncing
from agentd.server.checkpoints import CHECKPOINT
from agentd.server.journal import Journal
from agentd.wire.bodies import Content
from agentd.wire.errors import Busy, DiskFull, JournalFailed
from agentd.wire.messages import Accepted, Message, Options, Priority, Send, State

LOW = Options(Priority.LOW, allow_absent=True)
SEGMENT_BYTES = 1 << 20


class Slow:
    """A disk that takes its time."""

    how = "slow"

    def __init__(self) -> None:
        self.begun = 0
        self._then: Callable[[OSError | None], None] | None = None

    def begin(self, files: list[int], then: Callable[[OSError | None], None]) -> None:
        assert self._then is None, "one sync at a time"
        self.begun += 1
        self._then = then

    @property
    def is_begun(self) -> bool:
        return self._then is not None

    async def begins(self) -> None:
        while not self.is_begun:
            await asyncio.sleep(0.001)

    def end(self, error: OSError | None = None) -> None:
        then, self._then = self._then, None
        assert then is not None
        then(error)

    def wait(self) -> OSError | None:
        self._then = None
        return None

    def close(self) -> None:
        pass


class Place:
    """A hub with a journal, and one agent that sends to another that is absent."""

    def __init__(self, directory: Path, disk: Slow, **settings: object) -> None:
        self.world = World()
        self.directory = directory / "journal"
        self.disk = disk
        self.journal = Journal(JournalSettings(segment_bytes=SEGMENT_BYTES, **settings), directory)  # type: ignore[arg-type]
        self.journal.restore(self.world.hub, self.world.now)
        self.journal.serve(asyncio.get_running_loop(), lambda: self.world.now, self.journal.end_turn)
        self.sender: FakeSession = self.world.join("planner")
        self.end_turn()  # nobody waits for the name: it is synced later

    def send(self, size_bytes: int = 1) -> int:
        cid = self.sender.next_cid()
        self.world.hub.router.send(
            self.sender, Send(cid, "sink", Content.BYTES, bytes(size_bytes), LOW), self.world.now
        )
        return cid

    def end_turn(self) -> None:
        self.journal.end_turn(self.world.now)

    def told(self) -> list[int]:
        found = self.sender.told(Accepted)
        assert {one.state for one in found} <= {State.STORED}
        return [one.cid + place for one in found for place in range(one.count)]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Slow:
    slow = Slow()
    monkeypatch.setattr(syncing, "make", lambda *_: slow)
    return slow


@pytest.fixture
def places(tmp_path: Path, disk: Slow, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Place]]:
    monkeypatch.setattr(journal.log, "propagate", False)  # an error of the disk is no defect here
    made: list[Place] = []

    def make(**settings: object) -> Place:
        made.append(Place(tmp_path, disk, **settings))
        return made[-1]

    yield make
    for place in made:
        if not place.journal.failed:
            place.journal.close(place.world.hub, place.world.now)


async def test_nobody_is_told_before_the_disk_has_said_so(places: Callable[..., Place], disk: Slow) -> None:
    place = places()
    cid = place.send()
    assert place.told() == []
    place.end_turn()
    assert place.told() == [] and not any(entry.is_stored for entry in place.world.hub.receipts.entries.values())
    disk.end()
    assert place.told() == [cid]


async def test_mapped_is_told_at_the_end_of_the_turn(places: Callable[..., Place], disk: Slow) -> None:
    place = places(level="mapped")
    cid = place.send()
    assert place.told() == []
    place.end_turn()
    assert place.told() == [cid]
    await disk.begins()
    disk.end()
    assert place.told() == [cid]


async def test_what_nobody_waits_for_shares_a_sync(places: Callable[..., Place], disk: Slow) -> None:
    """But it is not put off when somebody waits, nor when there is much of it."""
    place = places(level="mapped")
    begun = disk.begun
    for _ in range(10):
        place.send()
        place.end_turn()
    assert disk.begun == begun
    await disk.begins()
    assert disk.begun == begun + 1
    disk.end()
    for _ in range(5):
        place.send(250_000)
    place.end_turn()
    assert disk.is_begun


async def test_an_ack_waits_for_a_sync_that_somebody_waits_for(places: Callable[..., Place], disk: Slow) -> None:
    place = places()
    place.send()
    place.end_turn()
    disk.end()
    taker = place.world.join("sink", credit=1)
    (message,) = taker.told(Message)
    place.end_turn()
    begun = disk.begun
    place.world.ack(taker, message.id)
    place.end_turn()
    assert disk.begun == begun
    place.send()
    place.end_turn()
    assert disk.begun == begun + 1


async def test_mapped_is_with_the_kernel_when_it_is_told(places: Callable[..., Place], disk: Slow) -> None:
    """Also beside a sync, where what is appended is gathered first: somebody else can read it from the files."""
    place = places(level="mapped")
    place.send()
    place.end_turn()
    await disk.begins()
    cid = place.send()
    place.end_turn()
    assert cid in place.told()
    (segment,) = _native.check_journal(str(place.directory))[:1]
    assert segment[4] == 4  # two names, and both messages
    disk.end()


async def test_what_comes_while_a_sync_is_under_way_shares_the_next_one(
    places: Callable[..., Place], disk: Slow
) -> None:
    place = places()
    first = place.send()
    place.end_turn()
    begun = disk.begun
    later = []
    for _ in range(3):
        later.append(place.send())
        place.end_turn()
    assert disk.begun == begun
    disk.end()  # which did not have the later ones
    assert place.told() == [first] and disk.begun == begun + 1
    disk.end()
    assert place.told() == [first, *later] and disk.begun == begun + 1


async def test_the_first_error_of_a_sync_ends_it_all(places: Callable[..., Place], disk: Slow, tmp_path: Path) -> None:
    place = places()
    place.send()
    place.end_turn()
    disk.end(OSError(errno.EIO, "Input/output error"))
    assert place.told() == [] and "Input/output error" in place.journal.failed
    with pytest.raises(JournalFailed, match="Input/output error"):
        place.send()
    place.end_turn()
    assert place.told() == [] and "nothing more is kept" in place.journal.persistence
    with pytest.raises(OSError, match="is lost"):
        place.journal.close(place.world.hub, place.world.now)


async def test_a_checkpoint_waits_for_what_it_builds_on(places: Callable[..., Place], disk: Slow) -> None:
    place = places(checkpoint_bytes=10_000)
    for _ in range(20):
        place.send(1000)
    place.end_turn()
    both = threading.Barrier(2)  # once both threads are here, nothing else is under way
    await asyncio.gather(*(asyncio.wrap_future(place.journal._threads.submit(both.wait)) for _ in range(2)))
    assert not (place.directory / CHECKPOINT).exists()
    while not (place.directory / CHECKPOINT).exists():
        if disk._then is not None:
            disk.end()
        await asyncio.sleep(0.001)


async def test_an_ack_waits_for_a_slow_disk_and_nothing_is_stored_before_it(
    places: Callable[..., Place], disk: Slow, tmp_path: Path
) -> None:
    """Two segments are full, and neither is synced: a third is not begun."""
    place = places(level="mapped", checkpoint_bytes=1 << 30)
    place.send()
    place.end_turn()
    await disk.begins()
    with pytest.raises(Busy):
        while True:
            place.send(200_000)
    with pytest.raises(Busy):
        while True:
            place.send()
    taker = place.world.join("sink", credit=100)
    place.world.delivered(taker, *(ids := [message.id for message in taker.told(Message)]))  # a note each
    while not place.journal._notes:
        place.world.reject(taker, ids.pop())
    place.world.ack(taker, *ids)
    place.end_turn()
    with pytest.raises(Busy):
        place.send()
    disk.end()
    disk.end()  # the end of the first segment came behind the first one
    assert not place.journal._notes
    place.send()
    place.end_turn()
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "journal").mkdir(mode=0o700)  # as a kill would leave it, had there been no checkpoint
    for segment in place.directory.glob("*.segment"):
        shutil.copy(segment, tmp_path / "copy" / "journal")
    again = World()
    copy = Journal(JournalSettings(segment_bytes=SEGMENT_BYTES), tmp_path / "copy")
    copy.restore(again.hub, again.now)
    sink = again.hub.agents.get("sink")
    assert set(sink.waiting) == set(place.world.hub.agents.get("sink").waiting) and not set(ids) & set(sink.waiting)
    copy.close(again.hub, again.now)


async def test_no_room_is_refused_and_goes_on_when_there_is_some(
    places: Callable[..., Place], disk: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = places()
    native = place.journal._native

    class Full:
        def __getattr__(self, name: str) -> object:
            return getattr(native, name)

        def append(self, *_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(place.journal, "_native", Full())
    before = len(place.world.hub.receipts.entries)
    with pytest.raises(DiskFull):
        place.send()
    assert len(place.world.hub.receipts.entries) == before and "sink" not in place.world.hub.agents.by_name
    monkeypatch.undo()
    while True:
        try:
            again = place.send()
            break
        except DiskFull:  # it is not tried all the time
            await asyncio.sleep(0.01)
    if disk.is_begun:  # for names, meanwhile
        disk.end()
    place.end_turn()
    disk.end()
    assert place.told() == [again]
