"""What people write on the command line, as a body: text, @file, or - for stdin."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from agentd.cli.call import argument, option
from agentd.wire.bodies import Content, decode_body
from agentd.wire.errors import AgentdError, BadBody, TooLarge

if TYPE_CHECKING:
    from collections.abc import Callable

#: The most that a daemon can be configured to take; its own limit comes with its answer.
_MAX_BYTES = 1 << 30


class NoSuchFile(AgentdError):
    """The file named by @file can't be read."""

    code = "no_such_file"
    exit_status = 66


def takes_body(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the argument BODY and the options that fix its kind."""
    for decorate in (
        option("--json-body", "kind", flag_value="json", help="BODY is JSON, whatever it looks like."),
        option("--bytes", "kind", flag_value="bytes", help="BODY is bytes."),
        option("--text", "kind", flag_value="text", help="BODY is text, also when it looks like JSON."),
        argument("body", metavar="BODY"),
    ):
        function = decorate(function)
    return function


def read_body(given: str, kind: str | None) -> object:
    """The value that BODY stands for: `-` is stdin, `@path` a file, `@@...` text that begins with @."""
    if given == "-":
        if sys.stdin is None:
            raise BadBody("BODY is - but stdin is closed", "Give the body as an argument or as @file.")
        data = sys.stdin.buffer.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise TooLarge(f"stdin has more than {_MAX_BYTES} bytes", "Put it into a file and send the file's path.")
    elif given.startswith("@") and not given.startswith("@@"):
        data = _read_file(given[1:])
    else:
        data = os.fsencode(given.removeprefix("@") if given.startswith("@@") else given)
    return value_of(data, kind)


def value_of(data: bytes, kind: str | None = None) -> object:
    """The value that some bytes stand for. Without a kind: JSON for an object or array, text for UTF-8, else bytes."""
    if kind == "bytes":
        return data
    if kind is not None:
        return decode_body(Content(kind), data)
    if data.lstrip()[:1] in (b"{", b"["):
        try:
            return decode_body(Content.JSON, data)
        except BadBody:
            pass
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise NoSuchFile(
            f"The body's file {path!r} can't be read: {error.strerror}", "To send text that begins with @, write @@."
        ) from None
