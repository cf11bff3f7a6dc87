"""Both faces of the client: what became of a message that was kept is known after the daemon was stopped or killed."""

from __future__ import annotations

import pytest
from daemons import Daemon
from faces import Face, MemoryDaemon

from agentd_client import errors


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_trace_and_a_key_that_is_said_again_answer(
    own_face: Face, place: Daemon | MemoryDaemon, end: str
) -> None:
    async with own_face.connect("planner", take=False) as planner, own_face.connect("builder") as builder:
        sent = await planner.send("builder", "x", priority="low", key="k")
        rejected = await planner.send("builder", "y", durable=True)
        fleeting = await planner.send("builder", "z")
        await (await builder.receive(timeout=60)).ack()
        await (await builder.receive(timeout=60)).reject("no")
        await (await builder.receive(timeout=60)).ack()
        await builder.drop([rejected.id])
        before = [await planner.trace(id) for id in (sent.id, rejected.id)]
    getattr(place, end)()
    place.start()
    async with own_face.connect("planner", take=False) as planner:
        for view in before:
            after = await planner.trace(view.id)
            assert [(s.state, s.who, s.note) for s in after.transitions] == [
                (s.state, s.who, s.note) for s in view.transitions
            ]
            assert [s.at for s in after.transitions] == pytest.approx([s.at for s in view.transitions], abs=0.05)
        again = await planner.send("builder", "x", priority="low", key="k", wait="acked", timeout=60)
        assert (again.id, again.state) == (sent.id, "acked")
        with pytest.raises(errors.NoSuchMessage):
            await planner.trace(fleeting.id)
