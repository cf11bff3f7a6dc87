"""A pool used in any order: whatever both ends do, bodies stay whole and nothing of the pool is lost."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pools import PAGE, Ends, Refused


class Pools(RuleBasedStateMachine):
    """A sender that does all it can with blocks, and a receiver that reads, views, drops and finishes in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = Ends(pool=16 * PAGE, ring=16384)  # 1 KiB rides in the ring
        self.number = 0
        self.filling: list[tuple[Any, bytes]] = []
        self.promised: list[Any] = []
        self.sent: list[bytes] = []
        self.held: list[tuple[Any, bytes, list[Any]]] = []

    def body(self, size: int) -> bytes:
        self.number += 1
        return struct.pack("<I", self.number) * (size // 4)

    sizes = st.one_of(st.integers(0, 16 * PAGE), st.integers(0, 2 * PAGE))

    @rule(size=sizes)
    def send(self, size: int) -> None:
        body = self.body(size)
        try:
            self.ends.channel.send(body)
        except Refused as refused:
            assert refused.args[0] == "EAGAIN"
        else:
            self.sent.append(body)

    @rule(size=sizes)
    def fill(self, size: int) -> None:
        body = self.body(size)
        try:
            block = self.ends.channel.allocate(len(body))
        except Refused as refused:
            assert refused.args[0] == "EAGAIN"
            return
        block.buffer[:] = body
        self.filling.append((block, body))

    @precondition(lambda self: self.filling)
    @rule(data=st.data(), how=st.sampled_from(["send", "abandon", "drop", "promise"]))
    def finish(self, data: st.DataObject, how: str) -> None:
        block, body = self.filling.pop(data.draw(st.integers(0, len(self.filling) - 1)))
        assert memoryview(block) == body  # nobody else wrote there
        if how == "send":
            try:
                self.ends.channel.send(block)
            except Refused as refused:
                assert refused.args[0] == "EAGAIN"
            else:
                self.sent.append(body)
        elif how == "abandon":
            block.abandon()
        elif how == "promise":
            block.reference()
            self.promised.append(block)

    @precondition(lambda self: self.promised)
    @rule()
    def break_a_promise(self) -> None:
        self.promised.pop().abandon()

    @rule()
    def take(self) -> None:
        record = self.ends.take()
        if record is None:
            assert not self.sent
        else:
            self.held.append((record, self.sent.pop(0), []))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), how=st.sampled_from(["read", "view", "release", "settle", "drop"]))
    def use(self, data: st.DataObject, how: str) -> None:
        place = data.draw(st.integers(0, len(self.held) - 1))
        record, body, views = self.held[place]
        if how == "drop":
            del self.held[place]
        elif how == "settle":
            record.settled = True
        elif how == "release" and views:
            views.pop().release()
        else:
            try:
                if how == "read":
                    assert record.body == body
                elif how == "view":
                    views.append(record.view())
            except ValueError as error:
                assert "given back" in str(error) and record.settled and not views

    @rule(keep=st.integers(0, 16 * PAGE))
    def trim(self, keep: int) -> None:
        self.ends.channel.trim(keep)

    @invariant()
    def what_is_held_is_whole(self) -> None:
        for _, body, views in self.held:
            for view in views:
                assert memoryview(view) == body
        for block, body in self.filling:
            assert memoryview(block) == body

    @invariant()
    def nothing_overlaps(self) -> None:
        ends = sorted((block.offset, block.offset + max(block.size, 1)) for block, _ in self.filling)
        assert all(a[1] <= b[0] for a, b in pairwise(ends))
        assert self.ends.incoming.held <= len(self.held)

    def teardown(self) -> None:
        for block in self.promised:
            block.abandon()
        self.filling.clear()
        self.held.clear()
        while self.ends.take() is not None:
            pass
        assert (self.ends.channel.lent, self.ends.incoming.held) == (0, 0)
        self.ends.channel.allocate(16 * PAGE)  # all of it is one piece again
        self.ends.close()


TestPools = Pools.TestCase
TestPools.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
