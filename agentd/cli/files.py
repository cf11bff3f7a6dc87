"""Files from disk to disk, as `send TO @FILE --priority high` and `recv --save DIR` have them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from agentd.cli import letters, show
from agentd.cli.bodies import NoSuchFile
from agentd.cli.call import Call
from agentd.wire.errors import AgentdError

if TYPE_CHECKING:
    from agentd_client.blocking import Client

#: What a plain message can have and a file can't.
_NOT_OF_FILES: Final = {
    "allow_absent": "--allow-absent",
    "durable": "--durable",
    "key": "--key",
    "delay": "--delay",
    "level": "--level",
    "at": "--at",
    "headers": "--header",
    "re": "--re",
}
#: How many names are tried for a file whose own is taken.
_MAX_NAMES: Final = 1000


def is_file(body: str, kind: str | None, priority: str) -> bool:
    """Whether BODY is sent as a file: without an option that says which body it is, on the lane that can."""
    return priority == "high" and kind is None and body.startswith("@") and not body.startswith("@@")


@contextmanager
def _progress(call: Call, label: str, size: int) -> Iterator[Callable[[int, int], object] | None]:
    """A bar, where somebody sees it."""
    if call.as_json or not show.is_terminal(sys.stderr):
        yield None
        return
    with click.progressbar(length=size, label=label, file=sys.stderr) as bar:
        yield lambda done, total: bar.update(done - bar.pos)


def send(call: Call, me: Client, to: str, path: str, wait: str | None, options: dict[str, Any]) -> int:
    """Send it, and say what state it reached: delivered, unless something else was asked for."""
    for name, option in _NOT_OF_FILES.items():
        if options.get(name):
            raise click.UsageError(f"{option}: not of a file. With --bytes, --text or --json-body it is a body.")
    if options["route"] not in (None, "direct"):
        raise click.UsageError(f"--route {options['route']}: a file goes direct. With --bytes it is a body.")
    try:
        size = os.path.getsize(path)
        with _progress(call, f"{show.cell(os.path.basename(path))} to {to}", size) as progress:
            receipt = me.send_file(
                to, path, timeout=call.patience_s, wait=wait or "delivered", ttl=options["ttl"], progress=progress
            )
    except OSError as error:
        raise NoSuchFile(f"The file {path!r} can't be read: {error.strerror}", "Nothing of it was kept.") from None
    return letters.show_receipt(call, receipt, to=to, file=os.path.basename(path), size_bytes=size)


def take(call: Call, message: Any, directory: str, *, go_on: bool) -> None:
    """Save the file that a message offers, say so, and ack it. One that does not come need not be the last."""
    try:
        saved = _save(call, message, directory)
    except (AgentdError, OSError) as error:
        if not go_on:
            raise
        _tell(call, error)
        return
    _show_saved(call, message, saved)
    message.ack()


def _tell(call: Call, error: AgentdError | OSError) -> None:
    code, hint, retryable = "io", "Its sender was told.", False
    what = str(error)
    if isinstance(error, AgentdError):
        code, what, hint, retryable = error.code, error.message, error.hint, error.retryable
    if call.as_json:
        show.emit({"error": {"code": code, "message": what, "hint": hint, "retryable": retryable}})
    else:
        show.warn(f"agentctl: {show.cell(what)}", show.cell(hint))


def _save(call: Call, message: Any, directory: str) -> dict[str, Any]:
    """Save the file that a message offers into that directory, beside what is there; what is to be said of it."""
    file = message.file
    with _progress(call, f"{show.cell(file.name)} from {message.sender}", file.size) as progress:
        for number in range(_MAX_NAMES):
            path = os.path.join(directory, f"{file.name}.{number}" if number else file.name)
            try:
                path = message.save(path, timeout=call.patience_s, progress=progress)
            except FileExistsError:
                if message.settled:  # somebody took the name meanwhile
                    raise
                continue
            return {"name": file.name, "size_bytes": file.size, "digest": file.digest, "path": os.path.abspath(path)}
    message.reject("no name is free for it")
    raise FileExistsError(17, os.strerror(17), os.path.join(directory, file.name))


def _show_saved(call: Call, message: Any, saved: dict[str, Any]) -> None:
    """A file taken."""
    if call.as_json:
        show.emit(letters.to_json(message) | {"file": saved})
        return
    show.say(
        show.GAP.join(
            [
                show.paint(message.id, "bold"),
                f"from agent {message.sender}, {show.cell(message.provenance)}",
                show.clock(message.sent_at),
            ]
        ),
        f"saved {show.cell(saved['path'])}{show.GAP}{show.size(saved['size_bytes'])}{show.GAP}{saved['digest']}",
    )
