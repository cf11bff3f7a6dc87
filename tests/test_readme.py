"""README says what is: its tour is run and compared, its tables are held against the commands and the files."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from commands import Agentctl

from agentd.cli.main import root
from agentd.host.arguments import VERSION

HERE = Path(__file__).parent.parent
README = (HERE / "README.md").read_text()

#: What differs from run to run, and what stands for it.
VARIABLE = [
    (r"\b[a-z2-7]{13}\b", "ID"),
    (r"\buid \d+ pid \d+ \([^)]*\)", "WHO"),
    (r"\b\d\d:\d\d:\d\d(\.\d+)?\b", "TIME"),
    (r"\d+\.\d+ ms\b", "MS"),
    (r"\b\d+\.\d+s ago\b", "AGO"),
    (r" {2,}", "  "),
]


def tour() -> list[tuple[str, str]]:
    """The commands of the first console block, each with what it printed."""
    (block,) = re.findall(r"^```console\n(.*?)^```", README, re.M | re.S)[:1]
    steps = re.split(r"^\$ ", block, flags=re.M)[1:]
    return [(command, output) for command, _, output in (step.partition("\n") for step in steps)]


def normal(text: str) -> str:
    for pattern, word in VARIABLE:
        text = re.sub(pattern, word, text)
    return text.strip()


def test_the_tour_prints_what_readme_says(agentctl: Agentctl) -> None:
    ids: dict[str, str] = {}  # README's to this run's
    for command, expected in tour():
        words = shlex.split(command)
        assert words[0] == "agentctl"
        words = [ids.get(word, word) for word in words]
        result = agentctl(*words[1:])
        printed = result.out + result.err
        assert normal(printed) == normal(expected), command
        for theirs, ours in zip(re.findall(VARIABLE[0][0], expected), re.findall(VARIABLE[0][0], printed), strict=True):
            ids[theirs] = ours
            ids[theirs[:4]] = ours[:4]


def test_every_verb_is_in_readme_and_no_other() -> None:
    table = README.partition("## Commands")[2].partition("\n\nEach has")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.M)
    named = {word.removeprefix("agentctl ") for cell in cells for word in re.findall(r"`([^`]*)`", cell)}
    assert named == set(root.list_commands(click.Context(root)))


@pytest.mark.parametrize("page", ["README.md", "docs/design.md"])
def test_every_path_that_is_named_is_there(page: str) -> None:
    text = (HERE / page).read_text()
    paths = set(re.findall(r"`((?:agentd|native|clients|tests|bench|examples|docs)/[A-Za-z0-9_./-]*)`", text))
    paths |= {f"agentd/{path}" for path in re.findall(r"`((?:server|hub|lanes|host|wire)/\w+\.py)`", text)}
    assert paths
    missing = [path for path in sorted(paths) if not (HERE / path).exists() and path != "agentd/_native"]
    assert not missing


def test_every_folder_of_the_package_is_on_the_map() -> None:
    table = README.partition("## Where things are")[2]
    for folder in sorted((HERE / "agentd").iterdir()):
        if folder.is_dir() and (folder / "__init__.py").exists():
            assert f"`agentd/{folder.name}/`" in table


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (HERE / "Makefile").read_text(), re.M))
    assert set(re.findall(r"\bmake ([a-z-]+)", README)) <= targets


def test_the_version_is_the_same_everywhere() -> None:
    for file, pattern in (("pyproject.toml", r'^version = "(.*)"'), ("meson.build", r"^    version: '(.*)'")):
        (found,) = re.findall(pattern, (HERE / file).read_text(), re.M)
        assert found == VERSION, file


def test_agents_are_told_how_to_talk_in_thirty_lines(agentctl: Agentctl) -> None:
    guide = agentctl("guide").out
    assert len(guide.splitlines()) <= 30
    for verb in re.findall(r"`agentctl (\w+)", guide):
        assert verb in root.list_commands(click.Context(root)), verb
