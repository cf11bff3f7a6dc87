"""Holds what agentctl prints with --json against its schemas, closed: a field that no schema knows is a mistake here.

tests/commands.py does that with every output of every test; tests/test_cli_schema.py sees to it that each verb is among
them.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import click
from jsonschema import Draft202012Validator

from agentd.cli.main import root
from agentd.wire.outputs import OUTPUTS
from agentd.wire.schema import schema_of

WHAT_TO_DO = (
    "Describe what `agentctl {0} --json` prints in agentd/wire/outputs.py: a struct (or the daemon's view itself) in "
    "OUTPUTS under {0!r}. Then give it a case in tests/test_cli_schema.py, which shows it printed by the real daemon."
)


def verb_of(args: tuple[str | bytes, ...]) -> str:
    """The words of the verb that a call of agentctl names, its default filled in."""
    command: click.Command = root
    path: list[str] = []
    words = iter(args)
    while isinstance(command, click.Group):
        ctx = click.Context(command)
        names = command.list_commands(ctx)
        name = next((str(word) for word in words if word in names), None) or getattr(command, "default")  # noqa: B009
        path.append(name)
        found = command.get_command(ctx, name)
        assert found is not None
        command = found
    return " ".join(path)


@cache
def validator(name: str) -> Draft202012Validator:
    """Checks one object that this verb printed."""
    assert name in OUTPUTS, WHAT_TO_DO.format(name)
    schema = schema_of(name)
    Draft202012Validator.check_schema(schema)
    _close(schema)
    return Draft202012Validator(schema)


def _close(schema: Any) -> None:
    if isinstance(schema, dict):
        if "properties" in schema:
            schema["additionalProperties"] = False
        for part in schema.values():
            _close(part)
    elif isinstance(schema, list):
        for part in schema:
            _close(part)


def check(args: tuple[str | bytes, ...], stdout: bytes) -> None:
    """Fail for a line that is not what the verb's schema says."""
    name = verb_of(args)
    for line in stdout.decode().splitlines():
        shown = json.loads(line)
        which = "error" if isinstance(shown, dict) and set(shown) == {"error"} else name
        problems = [f"{error.json_path}: {error.message}" for error in validator(which).iter_errors(shown)]
        assert not problems, f"agentctl {name} --json printed {line}\nwhich its schema does not allow: {problems}\n" + (
            WHAT_TO_DO.format(name)
        )


def wants_json(args: tuple[str | bytes, ...]) -> bool:
    """Whether this call prints JSON."""
    return "--json" in (args[: args.index("--")] if "--" in args else args)
