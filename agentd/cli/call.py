"""What all verbs share: the common options, who is speaking, and the way to the daemon."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from agentd.cli.show import is_terminal, say, warn

if TYPE_CHECKING:
    from agentd_client.blocking import Client

#: How long a call waits when nobody says: an agent whose shell hangs is worse off than one that is told.
DEFAULT_TIMEOUT_S: Final = 30.0
NO_NAME: Final = "Replies can't reach you: you have no name here. Give yourself one with --as NAME or AGENTD_AGENT."

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
_LONGEST_S: Final = 366 * 86400


class Duration(click.ParamType[float]):
    """Seconds, or a number with a unit."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds that `value` stands for."""
        if isinstance(value, (int, float)):
            return float(value)
        number = value.rstrip("smhd")
        try:
            seconds = float(number) * _UNITS[value[len(number) :]]
        except (ValueError, KeyError):
            seconds = -1.0
        if not seconds >= 0:  # also not for nan
            self.fail(f"{value!r} is no duration: write 45s, 10m, 2h, 1d or plain seconds.", param, ctx)
        if seconds > _LONGEST_S:
            self.fail(f"{value!r} is more than a duration may be, {_LONGEST_S // 86400}d.", param, ctx)
        return seconds


DURATION: Final = Duration()


class Moment(click.ParamType[float]):
    """A time that is to come, as seconds since 1970: an hour of the day, the next one that there is, or a date."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """When `value` is."""
        from datetime import datetime, time, timedelta

        now = datetime.now()
        try:
            hour = time.fromisoformat(value)
        except ValueError:
            try:
                at = datetime.fromisoformat(value)
            except ValueError:
                self.fail(f"{value!r} is no time: write 17:30, 2026-12-24T17:30 or 2026-12-24T17:30+01:00.", param, ctx)
        else:
            at = datetime.combine(now, hour)
            if at.timestamp() <= now.timestamp():
                at = datetime.combine(now + timedelta(days=1), hour)
        if at.timestamp() <= now.timestamp():
            self.fail(f"{value} is over: name a time that is to come.", param, ctx)
        return at.timestamp()


MOMENT: Final = Moment()


#: A parameter as it was declared; made only for the verb that is called, which saves a tenth of `send`'s time.
_Declared = tuple[type[click.Parameter], tuple[str, ...], dict[str, Any]]


def _show_help(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        say(ctx.get_help())
        ctx.exit()


#: click's own help option would look for a translation of its one sentence on disk, at each call.
_HELP: Final[_Declared] = (
    click.Option,
    ("-h", "--help"),
    {"is_flag": True, "is_eager": True, "expose_value": False, "callback": _show_help, "help": "Show this and end."},
)
_COMMON: Final[list[_Declared]] = [
    (
        click.Option,
        ("--json", "as_json"),
        {"is_flag": True, "help": "Print JSON: one object, a line each for streams."},
    ),
    (click.Option, ("--as", "as_name"), {"metavar": "NAME", "help": "Who you are, instead of AGENTD_AGENT."}),
    (
        click.Option,
        ("--timeout",),
        {"type": DURATION, "metavar": "TIME", "help": "Give up after TIME; 30s unless given."},
    ),
    (click.Option, ("--socket",), {"metavar": "PATH", "help": "The daemon's socket, instead of the usual one."}),
    _HELP,
]
_COMMON_NAMES: Final = ("as_json", "as_name", "timeout", "socket")


class Call:
    """One call of a verb: what the common options say, given here or before the verb's name."""

    def __init__(self, ctx: click.Context) -> None:
        self.as_json = bool(_given(ctx, "as_json"))
        self.as_name: str | None = _given(ctx, "as_name")
        self.timeout: float | None = _given(ctx, "timeout")
        self.socket: str | None = _given(ctx, "socket")

    @property
    def patience_s(self) -> float:
        """How long to wait where the user did not say."""
        return DEFAULT_TIMEOUT_S if self.timeout is None else self.timeout

    @property
    def name(self) -> str | None:
        """Who is speaking: --as, AGENTD_AGENT, the login name on a terminal, nobody."""
        if chosen := self.as_name or os.environ.get("AGENTD_AGENT"):
            return chosen
        if is_terminal(sys.stdin) or is_terminal(sys.stdout):
            import pwd

            try:
                return pwd.getpwuid(os.getuid()).pw_name
            except KeyError:  # a uid without an entry, as in containers
                return None
        return None

    def must_name(self, what: str) -> str:
        """Who is speaking, where it can't be nobody."""
        name = self.name
        if name is None:
            raise click.UsageError(f"{what} needs to know who you are. Give --as NAME or set AGENTD_AGENT.")
        return name

    def connect(self, *, take: bool = False, share: bool = False, replace: bool = False) -> Client:
        """A connection to the daemon under the caller's name. `take` is for verbs that receive."""
        from agentd_client.blocking import connect

        gc.enable()  # all is imported; what runs from here may run for long
        if self.socket is not None:
            os.environ["AGENTD_SOCKET"] = self.socket
        client = connect(self.name, take=take, share=share, replace=replace, timeout=self.patience_s)
        client.conversation.on_stop = _stopped
        return client


def _stopped(by: str, reason: str) -> None:
    """`agentctl halt` reached us: leave, and give back what was not finished."""
    warn(f"{by} asked to stop{': ' if reason else ''}{reason}")
    raise click.exceptions.Exit(0)


def _given(ctx: click.Context | None, name: str) -> Any:
    """The option's value in the innermost context where somebody gave it."""
    while ctx is not None:
        if value := ctx.params.get(name):
            return value
        if value is not None and value is not False:
            return value  # a time of 0 was given too
        ctx = ctx.parent
    return None


_declared: Final[dict[Callable[..., Any], list[_Declared]]] = {}

F = TypeVar("F", bound="Callable[..., Any]")


def option(*names: str, **attrs: Any) -> Callable[[F], F]:
    """click.option, made later."""
    return _declare(click.Option, names, attrs)


def argument(*names: str, **attrs: Any) -> Callable[[F], F]:
    """click.argument, made later."""
    return _declare(click.Argument, names, attrs)


def _declare(kind: type[click.Parameter], names: tuple[str, ...], attrs: dict[str, Any]) -> Callable[[F], F]:
    def declare(function: F) -> F:
        _declared.setdefault(function, []).insert(0, (kind, names, attrs))  # decorators run from the last to the first
        return function

    return declare


def _make(declared: list[_Declared]) -> list[click.Parameter]:
    return [kind(list(names), **attrs) for kind, names, attrs in declared]


class Verb(click.Command):
    """A command with the common options and an example. Its function gets a Call first and may return an exit code."""

    def __init__(self, name: str, function: Callable[..., int | None], *, example: str) -> None:
        super().__init__(name, callback=function, help=cleandoc(function.__doc__ or ""), add_help_option=False)
        self.example = example
        self._declared = _declared.pop(function, [])

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Its own, then the common ones."""
        if not self.params:
            self.params = _make(self._declared + _COMMON)
        return super().get_params(ctx)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb."""
        assert self.callback is not None
        own = {name: value for name, value in ctx.params.items() if name not in _COMMON_NAMES}
        return ctx.invoke(self.callback, Call(ctx), **own)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The example comes last, as it was written."""
        _write_example(formatter, self.example)


class Verbs(click.Group):
    """Verbs of one noun; without a verb, the one called `default`."""

    def __init__(self, name: str, *, example: str, default: str, **attrs: Any) -> None:
        super().__init__(name, invoke_without_command=True, add_help_option=False, params=_make(_COMMON), **attrs)
        self.example = example
        self.default = default

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb that is named, else the default."""
        self.callback = lambda **_: self._run_default(ctx) if ctx.invoked_subcommand is None else None
        return super().invoke(ctx)

    def _run_default(self, ctx: click.Context) -> Any:
        command = self.get_command(ctx, self.default)
        assert command is not None
        with command.make_context(self.default, [], parent=ctx) as sub:
            return command.invoke(sub)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The example comes last, as it was written."""
        _write_example(formatter, self.example)


def _write_example(formatter: click.HelpFormatter, example: str) -> None:
    with formatter.section("Example"):
        for line in example.splitlines():
            formatter.write(f"{'':{formatter.current_indent}}{line}\n")


def verb(example: str, name: str | None = None) -> Callable[[Callable[..., int | None]], Verb]:
    """Make a function a verb of agentctl, called like the function unless it has a `name`."""
    return lambda function: Verb(name or function.__name__, function, example=example)
