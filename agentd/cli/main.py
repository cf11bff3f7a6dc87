"""agentctl: the verbs by panel, each panel loaded only when one of its verbs is called.

`agentctl send` has 100 ms, most of which Python and its libraries take: nothing is imported before it is needed, and
the process ends without tidying up memory that the kernel takes back anyway.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Any, Final, NoReturn

import click

from agentd.cli import show
from agentd.cli.call import Verbs

#: The verbs of each panel; their module in agentd.cli has the panel's name, unless they are in _OWN.
PANELS: Final = {
    "Talk": [
        "send",
        "recv",
        "inbox",
        "ack",
        "nack",
        "reject",
        "reply",
        "request",
        "serve",
        "publish",
        "subscribe",
        "unsubscribe",
        "trace",
    ],
    "Together": ["agents", "halt", "pause", "resume"],
    "See": ["status", "stats", "lanes", "dead", "history"],
    "Care": ["daemon", "doctor", "config", "journal", "schema", "completion", "guide", "version"],
}
#: Verbs that have a module of their own.
_OWN: Final = ("daemon", "stats", "completion", "doctor", "halt", "history", "journal")
_MODULE: Final = {name: name if name in _OWN else panel.lower() for panel, names in PANELS.items() for name in names}

INTERRUPTED: Final = 130
PIPE_CLOSED: Final = 141
USAGE: Final = 2
BUG: Final = 70
IO_ERROR: Final = 74


class Root(Verbs):
    """All verbs, by panel."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb."""
        return list(_MODULE)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The verb, its panel loaded."""
        module = _MODULE.get(name)
        if module is None:
            return None
        found = getattr(__import__(f"agentd.cli.{module}", fromlist=[name]), name)
        return found if isinstance(found, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that `args` begin with, or the one that was probably meant."""
        name = args[0]
        if name not in _MODULE and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, _MODULE, n=1)
            error = click.UsageError(f"There is no verb {name!r}")
            error.hint = f"Did you mean {near[0]!r}?" if near else "`agentctl --help` lists all verbs."  # type: ignore[attr-defined]
            raise error
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs, a section a panel."""
        for panel, names in PANELS.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(panel):
                formatter.write_dl([(name, verb.get_short_help_str(limit=100)) for name, verb in commands if verb])


root = Root(
    "agentctl",
    help="Talk to the other agents on this machine, and see what became of it. Alone: the daemon's status.",
    default="status",
    example="agentctl send builder 'compile it' --wait acked",
)


def run(args: list[str]) -> int:
    """Run one call; its exit code."""
    as_json = "--json" in (args[: args.index("--")] if "--" in args else args)
    try:
        with root.make_context("agentctl", args) as ctx:
            return root.invoke(ctx) or 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return PIPE_CLOSED
    except click.ClickException as error:
        return _refuse(as_json, USAGE, "usage", error.format_message(), _usage_hint(error))
    except Exception as error:
        return _failed(as_json, error)


def _usage_hint(error: click.ClickException) -> str:
    if hint := getattr(error, "hint", ""):
        return str(hint)
    ctx = getattr(error, "ctx", None)
    return f"`{ctx.command_path if ctx else 'agentctl'} --help` shows how it is used."


def _failed(as_json: bool, error: Exception) -> int:
    """Say what went wrong in two lines. A traceback only for who asks: it would be a defect of agentctl's."""
    from agentd.wire.errors import AgentdError, Unreachable

    if os.environ.get("AGENTD_DEBUG"):
        import traceback

        traceback.print_exc()
    if isinstance(error, Unreachable):
        from agentd.cli.care import how_to_start

        error.hint = how_to_start() or error.hint
    if isinstance(error, AgentdError):
        more: dict[str, Any] = {"retry_after": error.retry_after} if error.retry_after is not None else {}
        if error.receipt is not None:  # it was accepted all the same
            more |= {"id": error.receipt.id, "state": str(error.receipt.state)}
        if error.row:  # of send --dry-run
            more["row"] = error.row
        return _refuse(as_json, error.exit_status, error.code, error.message, error.hint, error.retryable, **more)
    if isinstance(error, OSError) and error.errno is not None:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
        return _refuse(as_json, IO_ERROR, "io", what, "Nothing more was done after this.")
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    hint = "This is a defect of agentctl. AGENTD_DEBUG=1 in the environment shows where."
    return _refuse(as_json, BUG, "internal", what, hint)


def _refuse(
    as_json: bool, status: int, code: str, message: str, hint: str, retryable: bool = False, **more: Any
) -> int:
    if as_json:
        try:
            show.emit({"error": {"code": code, "message": message, "hint": hint, "retryable": retryable, **more}})
        except OSError:  # nobody is there to read it
            pass
    else:
        show.warn(*(line for line in (f"agentctl: {show.cell(message)}", show.cell(hint)) if line))
    return status


def main() -> NoReturn:
    """The console script."""
    gc.disable()  # while importing there is no garbage to find, only time to lose
    status = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            pass
    os._exit(status)  # finalizing the interpreter would take a tenth of the time that `send` has
