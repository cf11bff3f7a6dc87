"""me.choose(): each face of the client, in front of a daemon and of the hub in memory, is told what becomes of a
message before there is one, and what it is told happens."""

from __future__ import annotations

from typing import Any

import pytest
from faces import Face

from agentd_client import errors


async def told(me: Any, to: str, body: object, **options: Any) -> tuple[object, ...]:
    """What choose says: lane and route, or the error."""
    try:
        view = await me.choose(to, body, **options)
    except errors.AgentdError as error:
        return error.code, error.message, error.hint, error.retryable
    return view.lane, view.route


async def done(me: Any, to: str, body: object, **options: Any) -> tuple[object, ...]:
    """The same, by sending it."""
    try:
        receipt = await me.send(to, body, **options)
    except errors.AgentdError as error:
        return error.code, error.message, error.hint, error.retryable
    return receipt.lane, receipt.route


@pytest.mark.parametrize("priority", ["critical", "high", "normal", "low", "batch"])
@pytest.mark.parametrize("route", [None, "direct", "relayed", "socket", "journal"])
async def test_what_is_told_is_done(face: Face, priority: str, route: str | None) -> None:
    async with face.connect("planner") as planner, face.connect("builder"):
        async with face.connect("gone"):
            pass
        for to in ("builder", "gone", "nobody"):
            for durable in (None, True):
                options = {"priority": priority, "route": route, "durable": durable}
                before = await told(planner, to, "hi", **options)
                after = await done(planner, to, "hi", **options)
                if "no shared memory" in str(after):  # the hub in memory says so in its own words
                    assert before[0] == after[0]
                else:
                    assert before == after, (to, options)


async def test_it_names_the_row_the_reason_and_what_may_change(face: Face) -> None:
    async with face.connect("planner") as planner, face.connect("builder"):
        view = await planner.choose("builder", {"pr": 7})
        assert (view.row, view.lane, view.route) == ("normal", "normal", "socket")
        assert "builder's inbox" in view.reason
        assert view.unless == ["builder is live now; if it leaves first, this waits for it on disk"]
        assert (await planner.look("builder")).total == 0
        with pytest.raises(errors.NoSuchAgent, match="builder") as refused:
            await planner.choose("bulder", "hi")
        assert refused.value.row == "normal_unknown"
        assert (await planner.choose("task:done", "hi", verb="publish")).row == "published"
        with pytest.raises(errors.NoResponder):
            await planner.choose("nobody", "hi", verb="request")


async def test_what_no_client_could_send_is_refused_as_sending_it_would_be(face: Face) -> None:
    async with face.connect("planner") as planner:
        with pytest.raises(errors.BadRequest, match="Nobody can wait for dead"):
            await planner.choose("planner", "hi", wait="dead")
        with pytest.raises(errors.BadBody):
            await planner.choose("planner", {"a": float("nan")})
        with pytest.raises(errors.BadRequest, match="kind"):
            await planner.choose("planner", "hi", verb="reply")
        with pytest.raises(errors.TooLarge):
            await planner.choose("planner", b"x" * ((16 << 20) + 1))
