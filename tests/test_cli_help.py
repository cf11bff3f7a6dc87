"""Every verb explains itself, and none loads more than it needs. No daemon here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from commands import Agentctl

from agentd.cli.call import DURATION, Verb, Verbs
from agentd.cli.main import PANELS, root

COMMON = {"as_json", "as_name", "timeout", "socket"}


def walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            assert child is not None
            yield from walk(child, (*path, name))


TREE = list(walk(root, ()))
EVERY = pytest.mark.parametrize(("path", "command"), TREE, ids=[" ".join(path) or "agentctl" for path, _ in TREE])


@pytest.fixture
def agentctl(tmp_path: Path) -> Agentctl:
    env = {name: value for name, value in os.environ.items() if not name.startswith("AGENTD_")}
    return Agentctl({**env, "AGENTD_RUNTIME_DIR": str(tmp_path)}, tmp_path)


@EVERY
def test_each_verb_has_one_sentence_and_an_example(path: tuple[str, ...], command: click.Command) -> None:
    assert isinstance(command, (Verb, Verbs))
    assert command.help
    first = command.help.split("\n\n")[0]
    assert first.endswith("."), first
    for line in command.example.splitlines():
        assert "agentctl" in line
    assert any(line.startswith(f"agentctl {' '.join(path)}".strip()) for line in command.example.splitlines())


@EVERY
def test_help_is_printed_with_its_example(path: tuple[str, ...], command: click.Command) -> None:
    with command.make_context("agentctl", ["--help"], resilient_parsing=True) as ctx:
        text = command.get_help(ctx)
    assert isinstance(command, (Verb, Verbs))
    for line in command.example.splitlines():
        assert f"  {line}" in text
    assert "Example:" in text


@EVERY
def test_each_verb_has_the_common_options_and_its_own_name(path: tuple[str, ...], command: click.Command) -> None:
    assert {param.name for param in command.get_params(click.Context(command))} >= COMMON
    assert command.name == (path[-1] if path else "agentctl")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_both_flags_help_and_verbs_come_by_panel(agentctl: Agentctl, flag: str) -> None:
    out = agentctl(flag, status=0).out
    places = [out.index(f"{panel}:\n") for panel in PANELS]
    assert places == sorted(places)
    for verbs in PANELS.values():
        for verb in verbs:
            assert f"\n  {verb} " in out
    assert "Usage: agentctl send" in agentctl("send", flag, status=0).out


def test_the_guide_is_short_and_names_real_verbs(agentctl: Agentctl) -> None:
    text = agentctl("guide", status=0).out
    assert len(text.splitlines()) <= 30
    assert set(re.findall("`agentctl ([a-z]+)\\b", text)) <= {verb for verbs in PANELS.values() for verb in verbs}
    assert agentctl("guide", "--json", status=0).json == {"guide": text}


@pytest.mark.parametrize("verb", ["send", "recv", "inbox", "ack", "request", "status", "dead"])
def test_a_one_shot_verb_needs_neither_asyncio_nor_other_panels(agentctl: Agentctl, verb: str) -> None:
    code = f"""
import sys
from agentd.cli import main
status = main.run({[verb, *{"send": ["x", "y"], "ack": ["k7qa"], "request": ["x", "y"]}.get(verb, [])]!r})
heavy = {{"asyncio", "subprocess", "json", "rich", "ssl", "email", "logging", "traceback", "importlib.metadata"}}
print(status, sorted(heavy & set(sys.modules)), sorted(m for m in sys.modules if m.startswith("agentd.cli.")))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**agentctl.env, "AGENTD_AGENT": "me"}, capture_output=True, text=True
    )
    status, rest = done.stdout.split(maxsplit=1)
    assert status == "69", done.stderr
    assert rest.startswith("[] "), rest
    assert ("agentd.cli.talk" in rest) != ("agentd.cli.see" in rest)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("45s", 45), ("10m", 600), ("2h", 7200), ("1d", 86400), ("1.5", 1.5), ("250ms", 0.25), ("0", 0)],
)
def test_durations(given: str, seconds: float) -> None:
    assert DURATION.convert(given, None, None) == pytest.approx(seconds)


@pytest.mark.parametrize("given", ["", "s", "-1", "10x", "1m30", "nan"])
def test_what_is_no_duration_is_refused(given: str) -> None:
    with pytest.raises(click.BadParameter, match="45s"):
        DURATION.convert(given, None, None)


@pytest.mark.parametrize("given", ["inf", "400d", "1e9"])
def test_a_duration_that_is_too_long_says_how_long_one_may_be(given: str) -> None:
    with pytest.raises(click.BadParameter, match="more than a duration may be, 366d"):
        DURATION.convert(given, None, None)
