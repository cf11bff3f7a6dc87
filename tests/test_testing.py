"""agentd_client.testing: what a test does to the hub in memory, and how it comes to the program that is tested.

That clients find there what they find with a daemon is what the conformance tests of the client hold: `face`.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from faces import until

import agentd_client
from agentd_client import State, blocking, errors, testing
from agentd_client.testing import MemoryHub

LONG = 30.0
HERE = Path(__file__).parent.parent


@pytest.fixture
def hub() -> Iterator[MemoryHub]:
    with testing.memory() as one:
        yield one


async def test_both_faces_meet(hub: MemoryHub) -> None:
    def serve() -> None:
        with hub.connect_blocking("builder") as me:
            message = me.receive(timeout=LONG)
            assert message is not None
            message.reply(message.value * 2)

    async with hub.connect("planner") as me:
        thread = threading.Thread(target=serve)
        thread.start()
        await until(lambda: _is_live(me, "builder"))
        assert (await me.request("builder", 21, timeout=LONG)).value == 42
    thread.join()


async def _is_live(me: agentd_client.Client, name: str) -> bool:
    return any(row.name == name and row.live for row in (await me.agents()).agents)


def test_two_clients_of_one_thread(hub: MemoryHub) -> None:
    with hub.connect_blocking("planner") as planner, hub.connect_blocking("builder") as builder:
        receipt = planner.send("builder", b"x")
        message = builder.receive(timeout=LONG)
        assert message is not None and message.id == receipt.id
        message.ack()
        assert planner.trace(receipt.id).state is State.ACKED


def test_a_program_that_connects_by_itself(hub: MemoryHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AGENTD_SOCKET", str(tmp_path / "none.sock"))
    with hub.installed():
        with testing.memory() as inner, inner.installed(), blocking.connect("me") as me:
            assert [row.name for row in me.agents().agents] == ["me"]
        with blocking.connect("me") as me, blocking.connect("you", socket=tmp_path / "some.sock") as you:
            assert sorted(row.name for row in you.agents().agents) == ["me", "you"]
            assert me.status().socket == hub.address
    with pytest.raises(errors.Unreachable), blocking.connect("me"):
        pytest.fail("nobody stands in any more")


async def test_time_passes_when_the_test_says_so(hub: MemoryHub) -> None:
    async with hub.connect("planner") as planner, hub.connect("builder") as builder:
        sending = asyncio.create_task(planner.send("builder", b"x", ttl=3600, wait="acked"))
        await until(lambda: _waits(planner, "builder"))
        hub.advance(3599)
        assert await _waits(planner, "builder")
        hub.advance(2)
        with pytest.raises(errors.Undelivered, match="expired"):
            await sending

        await planner.send("builder", b"y")
        message = await builder.receive(timeout=LONG)
        assert message is not None
        await message.nack("later", after=600)
        assert await builder.receive(timeout=0) is None
        hub.advance(601)
        again = await builder.receive(timeout=LONG)
        assert again is not None and again.attempt == 2
        await again.ack()
        hub.advance(0)  # what was said is heard, if nothing else
        assert (await planner.trace(again.id)).state is State.ACKED


async def _waits(me: agentd_client.Client, name: str) -> bool:
    return (await me.look(name)).total == 1


async def test_time_passes_by_itself_too(hub: MemoryHub) -> None:
    async with hub.connect("planner") as me:
        with pytest.raises(errors.Undelivered, match="expired"):
            await me.send("planner", b"x", ttl=0.01, wait="acked")


@pytest.mark.parametrize("face", ["asyncio", "blocking"])
async def test_who_is_killed_says_nothing_more_and_its_work_comes_back(hub: MemoryHub, face: str) -> None:
    async with hub.connect("planner") as planner:
        with pytest.raises(errors.Unreachable, match="builder was killed"):
            if face == "asyncio":
                async with hub.connect("builder") as builder:
                    await planner.send("builder", b"x")
                    message = await builder.receive(timeout=LONG)
                    assert message is not None
                    await until(lambda: _delivered(planner, message.id))
                    hub.kill("builder")
                    await message.ack()
                    await builder.status()
            else:
                with hub.connect_blocking("builder") as blocked:
                    await planner.send("builder", b"x")
                    taken = blocked.receive(timeout=LONG)
                    blocked.status()
                    hub.kill("builder")
                    assert taken is not None
                    taken.ack()
                    blocked.status()
        async with hub.connect("builder") as heir:
            again = await heir.receive(timeout=LONG)
            assert again is not None and (again.value, again.attempt) == (b"x", 2)
        with pytest.raises(LookupError):
            hub.kill("nobody")


async def _delivered(me: agentd_client.Client, id: str) -> bool:
    return (await me.trace(id)).state is State.DELIVERED


@pytest.mark.parametrize("how", ["stop", "crash"])
async def test_clients_come_back_after_a_restart(hub: MemoryHub, how: str) -> None:
    async with hub.connect("me") as me:
        await me.send("me", "before")
        getattr(hub, how)()
        with pytest.raises(errors.Unreachable):
            async with hub.connect("you"):
                pytest.fail("it does not run")
        await asyncio.sleep(0)  # me hears of it when the loop turns
        hub.start()
        await me.send("me", "after", timeout=LONG)
        kept = ["before"] * (how == "stop")
        values: list[object] = []
        while len(values) < len(kept) + 1:
            message = await me.receive(timeout=LONG)
            assert message is not None
            values.append(message.value)
        assert values == [*kept, "after"]


def test_limits_are_settings() -> None:
    with testing.memory("inbox.max_messages=2") as hub, hub.connect_blocking("me") as me:
        me.send("me", 1)
        me.send("me", 2)
        with pytest.raises(errors.Backpressure):
            me.send("me", 3, timeout=0.01)
    with pytest.raises(errors.ConfigError):
        testing.memory("inbox.max_massages=2")


async def test_a_client_that_outlives_the_hub_is_told(hub: MemoryHub) -> None:
    me = hub.connect("me")
    await me.__aenter__()
    hub.__exit__()
    with pytest.raises(errors.Unreachable, match="closed"):
        await me.status()
    with pytest.raises(RuntimeError):
        hub.start()


@pytest.mark.parametrize("name", ["agentd_client", "agentd_client.blocking", "agentd_client.client"])
def test_who_does_not_test_never_loads_the_daemon_s_code(name: str) -> None:
    code = f"import {name}, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    parts = (
        "agentd.hub",
        "agentd.server",
        "agentd.lanes",
        "agentd.host",
        "agentd_client._memory",
        "agentd_client.test",
    )
    assert [module for module in loaded.split() if module.startswith(parts)] == []
    assert name in loaded.split()


def _pytest(directory: Path, source: str, *arguments: str) -> str:
    (directory / "test_agent.py").write_text(textwrap.dedent(source))
    command = [sys.executable, "-P", "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run([*command, *arguments], cwd=directory, capture_output=True, text=True, env=environ)
    return done.stdout + done.stderr


def test_the_fixture_needs_no_event_loop(tmp_path: Path) -> None:
    source = """
        import asyncio, pytest
        from agentd_client import blocking, connect, errors

        @pytest.mark.agentd("inbox.max_messages=1")
        def test_blocking(agentd_hub):
            with blocking.connect("me") as me:
                me.send("me", 1)
                with pytest.raises(errors.Backpressure):
                    me.send("me", 2, timeout=0.01)

        def test_asyncio(agentd_hub):
            async def main():
                async with connect("me") as me:
                    await me.send("me", 1)
                    assert (await me.receive()).value == 1
            asyncio.run(main())
    """
    assert "2 passed" in _pytest(tmp_path, source, "-W", "error", "-p", "no:asyncio", "-p", "no:timeout")


def test_the_readme_s_test_passes(tmp_path: Path) -> None:
    section = (HERE / "README.md").read_text().partition("## Testing your agent")[2].partition("\n## ")[0]
    (source,) = re.findall(r"```python\n(.*?)```", section, re.S)
    said = _pytest(tmp_path, source)
    assert f"{len(re.findall('^def test_', source, re.M))} passed" in said, said
