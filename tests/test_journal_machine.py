"""A journal used in any order: what is read is what was appended, whatever was flushed, synced, opened, retired."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from journals import LARGEST, Report, behind, opened, prepare, segment_file

from agentd import _native


class Journals(RuleBasedStateMachine):
    """One journal, and beside it what it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.reports: list[Report] = []
        self.journal = opened(self.directory, self.reports)
        self.records: list[tuple[int, int, bytes]] = []
        self.n_appended = 0
        self.n_flushed = 0  # of `records`
        self.syncing: tuple[int, list[int]] | None = None

    def teardown(self) -> None:
        if self.syncing is not None:
            self.journal.end_sync()
        self.journal.close()
        shutil.rmtree(self.directory)

    sizes = st.one_of(st.integers(0, 300), st.integers(0, LARGEST), st.just(LARGEST))

    @rule(type=st.integers(0, 0xFFFF), size=sizes, count=st.integers(1, 3))
    def append(self, type: int, size: int, count: int) -> None:
        for _ in range(count):
            body = (self.n_appended.to_bytes(4, "little") * (size // 4 + 1))[:size]
            try:
                position = self.journal.append(type, body)
            except BlockingIOError:
                assert self.journal.tail >> 32 > self.journal.synced >> 32  # two segments wait
                self.sync()
                position = self.journal.append(type, body)
            assert not self.records or position >= behind(self.records[-1])
            self.n_appended += 1
            self.records.append((position, type, body))

    @rule()
    def flush(self) -> None:
        self.journal.flush()
        self.n_flushed = len(self.records)

    def sync(self) -> None:
        if self.syncing is None:
            self.begin_sync()
        self.end_sync()
        self.begin_sync()
        self.end_sync()
        assert self.journal.synced == self.journal.tail

    @precondition(lambda self: self.syncing is None)
    @rule()
    def begin_sync(self) -> None:
        self.syncing = self.journal.begin_sync()
        self.n_flushed = len(self.records)
        assert self.syncing[0] == self.journal.tail
        assert len(self.syncing[1]) <= 2

    @precondition(lambda self: self.syncing is not None)
    @rule()
    def end_sync(self) -> None:
        assert self.syncing is not None
        upto, fds = self.syncing
        for fd in fds:
            os.fdatasync(fd)
        self.journal.end_sync()
        self.syncing = None
        assert self.journal.synced == upto

    @rule()
    def prepare(self) -> None:
        number = self.journal.next_number
        prepare(self.journal, self.directory)
        assert not self.journal.needs_prepare
        assert segment_file(self.directory, number).exists()

    @precondition(lambda self: self.records)
    @rule(place=st.floats(0, 1, exclude_max=True))
    def read(self, place: float) -> None:
        number = int(place * len(self.records))
        position, type, body = self.records[number]
        found = self.journal.read(position)
        if number < self.n_flushed:
            assert found == (type, body, behind(self.records[number]))
        elif found is not None:  # nobody promises that it is not there yet
            assert found[:2] == (type, body)

    @precondition(lambda self: self.records)
    @rule(place=st.floats(0, 1, exclude_max=True), keep=st.integers(0, 3))
    def retire(self, place: float, keep: int) -> None:
        position = self.records[int(place * len(self.records))][0]
        before = self.journal.segments
        gone = self.journal.retire(position, keep)
        assert self.journal.segments == before - gone
        kept = [record for record in self.records if record[0] >> 32 >= self.journal.first >> 32]
        assert len(kept) == len(self.records) or kept[0][0] >> 32 <= position >> 32
        self.n_flushed -= len(self.records) - len(kept)
        self.records = kept

    @precondition(lambda self: self.syncing is None)
    @rule(how=st.sampled_from(["close", "drop"]), from_synced=st.booleans())
    def open_again(self, how: str, from_synced: bool) -> None:
        start = self.journal.synced if from_synced else 0
        if how == "close":
            self.journal.close()
        del self.journal
        self.journal = opened(self.directory, self.reports, start=start)
        self.n_flushed = len(self.records)
        assert self.journal.synced == self.journal.tail

    @invariant()
    def nothing_is_damaged(self) -> None:
        assert self.reports == []
        assert self.journal.poisoned == 0

    @invariant()
    def the_records_are_what_was_appended(self) -> None:
        assert self.journal.sequence == self.n_appended
        found = self.journal.scan(0, self.n_flushed + 1)
        assert found[: self.n_flushed] == self.records[: self.n_flushed]
        if self.n_flushed == len(self.records):
            assert len(found) == self.n_flushed

    @invariant()
    def who_only_looks_sees_the_same(self) -> None:
        found: list[tuple[int, int, bytes]] = []
        told: list[Report] = []

        def record(position: int, sequence: int, type: int, body: bytes) -> bool:
            assert sequence == self.n_appended - len(self.records) + len(found) + 1
            found.append((position, type, body))
            return True

        _native.check_journal(str(self.directory), lambda *one: told.append(one), record)
        assert told == []
        assert found[: self.n_flushed] == self.records[: self.n_flushed]


Journals.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestJournals = Journals.TestCase
