"""`agentctl inbox --notice`: one line when mail came, for the hook of any tool that runs one with every prompt.

Here is the quick way, which start.py takes before anything is imported. Whatever else stands on the command line goes
the usual way through talk.py, and prints the same line.
"""

from __future__ import annotations

import os
from time import monotonic

from agentd.cli.quick import NOTICE, NOTICE_VIEW, Quick

TYPE_CHECKING = False  # as typing has it, without importing that
if TYPE_CHECKING:
    from collections.abc import Iterable

#: Python has had 20 ms by now; the tool that waits for us has 60. What is not told now is told the next time.
PATIENCE_S = 0.035
_ORDINARY = "normal"


def announce(words: list[str]) -> bool:
    """Do what these words ask for; False where they are not for the quick way. A daemon that does not answer, and
    whatever else goes wrong, is no news."""
    asked = _read(words)
    if asked is None:
        return False
    name, option = asked
    try:
        with Quick(monotonic() + PATIENCE_S) as daemon:
            shown, fresh, waiting, senders = daemon.ask([NOTICE, name], NOTICE_VIEW)
            if fresh:
                os.write(1, (line(shown, option, fresh, waiting, senders) + "\n").encode())
            daemon.leave()
    except Exception:  # a hook must not stop the work of the tool that runs it
        pass
    return True


def _read(words: list[str]) -> tuple[str, str] | None:
    """Whose mail, and the option that names them, if there is nothing to it but that."""
    name = os.environ.get("AGENTD_AGENT") or ""
    option = ""
    rest = iter(words[1:])
    for word in rest:
        if word == "--as" or word.startswith("--as="):
            name = next(rest, "") if word == "--as" else word[5:]
            option = f" --as {name}"
        elif word != "--notice":
            return None
    return (name, option) if words[:1] == ["inbox"] and name and not name.startswith("-") else None


def line(name: str, option: str, fresh: int, waiting: int, senders: Iterable[tuple[str, int, str]]) -> str:
    """How many, from whom, the most urgent first, and how to take them."""
    rows = [(sender, count, "" if lane == _ORDINARY else f" ({lane})") for sender, count, lane in senders]
    if len(rows) == 1:
        whose = f"from {rows[0][0]}{rows[0][2]}"
    else:
        others = fresh - sum(count for _, count, _ in rows)
        whose = ", ".join([f"{count} from {sender}{lane}" for sender, count, lane in rows])
        whose += f", {others} from others" if others else ""
    more = f"; {waiting} wait in all" if waiting > fresh else ""
    what = "1 new message" if fresh == 1 else f"{fresh} new messages"
    return f"agentd: {what} for {name}, {whose}{more}. Take the next one: agentctl recv --hold 10m{option}"
