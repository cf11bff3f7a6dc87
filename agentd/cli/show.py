"""What is printed: text for people, JSON for programs, and nothing that a terminal could be fooled with.

All output goes through `write`, as bytes: what leaves does not depend on the locale. In a pipe nothing is shortened.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final

COLOURS: Final = {"red": "31", "yellow": "33", "green": "32", "bold": "1", "dim": "2"}
GAP: Final = "  "

# Control characters and those that turn the writing direction: a message must not move somebody's cursor.
_CONTROLS: Final = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_ESCAPES: Final = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _CONTROLS}
_ESCAPES_IN_TEXT: Final = {code: text for code, text in _ESCAPES.items() if chr(code) not in "\n\t"}


def is_terminal(stream: Any) -> bool:
    """Whether a person looks at this stream; a closed one is None."""
    return stream is not None and bool(stream.isatty())


@cache
def colours() -> bool:
    """Whether to paint: only on a terminal, and not where NO_COLOR is set."""
    return is_terminal(sys.stdout) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str) -> str:
    """`text` in a colour of COLOURS, where there are colours."""
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if text and colours() else text


def write(data: bytes) -> None:
    """To stdout and out of this process. BrokenPipeError when the reader is gone; without a stdout nothing."""
    if sys.stdout is not None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def say(*lines: str) -> None:
    """Lines of text to stdout."""
    write("".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace"))


def emit(value: object) -> None:
    """One JSON object, on a line of its own, to stdout."""
    import json

    write(json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")


def emit_view(view: Any) -> None:
    """One of the daemon's views as a JSON object."""
    from agentd.wire.ndjson import to_object

    shown = to_object(view)
    shown.pop("cid", None)
    emit(shown)


def warn(*lines: str) -> None:
    """Lines to stderr; that nobody reads them harms nothing."""
    try:
        if sys.stderr is not None:
            sys.stderr.write("".join(line + "\n" for line in lines))
            sys.stderr.flush()
    except (OSError, UnicodeEncodeError):
        pass


def cell(text: str) -> str:
    """Text of others on one line, its control characters made visible."""
    return text.translate(_ESCAPES)


def body_bytes(body: bytes, *, text: bool) -> bytes:
    """A body as it goes to stdout: exactly as it is, but on a terminal with its control characters made visible.
    What is text gets the newline that it may lack."""
    if is_terminal(sys.stdout):
        shown = body.decode("utf-8", "backslashreplace").translate(_ESCAPES_IN_TEXT)
        return (shown if shown.endswith("\n") else shown + "\n").encode()
    return body + b"\n" if text and not body.endswith(b"\n") else body


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, indent: str = "") -> list[str]:
    """Columns as wide as what is in them, numbers to the right. Only a terminal cuts the last one, at its edge."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(_width, column)) for column in columns]
    right = [bool(rows) and all(text.replace(".", "").isdigit() for text in column[1:] if text) for column in columns]
    right[-1] = False
    room = _room() - len(indent) - sum(widths[:-1]) - len(GAP) * (len(widths) - 1)
    lines = []
    for number, row in enumerate([head, *rows]):
        cells = [_pad(text, width, to) for text, width, to in zip(row[:-1], widths, right, strict=False)]
        line = indent + GAP.join([*cells, _cut(row[-1], room)])
        lines.append(paint(line.rstrip(), "dim") if number == 0 else line.rstrip())
    return lines


def pairs(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Names and values, a pair a line."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    return [f"{name:{width}}{GAP}{value}" for name, value in rows]


def _room() -> int:
    """Columns of the terminal; endless in a pipe."""
    if not is_terminal(sys.stdout):
        return 1 << 30
    import shutil

    return shutil.get_terminal_size().columns


def _width(text: str) -> int:
    """Columns that a terminal needs for it."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def _pad(text: str, width: int, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


def _cut(text: str, room: int) -> str:
    if _width(text) <= room or room < 8:
        return text
    while _width(text) > room - 1:
        text = text[:-1]
    return text + "…"


def clock(at: float, *, fine: bool = False) -> str:
    """A time as people read it: the hour today, the day before that."""
    local = time.localtime(at)
    day = "" if local[:3] == time.localtime()[:3] else "%Y-%m-%d "
    return time.strftime(day + "%H:%M:%S", local) + (f".{int(at % 1 * 1000):03}" if fine else "")


def span(seconds: float) -> str:
    """A duration in its two largest units."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    left = int(seconds)
    out: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        if left >= size or (unit == "s" and not out):
            out.append(f"{left // size}{unit}")
            left %= size
    return " ".join(out[:2])


def short_span(seconds: float) -> str:
    """A duration as machines measure it: 740 ns, 12.3 µs, 4.56 ms, then as `span`."""
    if seconds >= 10:
        return span(seconds)
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        if seconds >= scale or unit == "ns":
            return f"{seconds / scale:.3g} {unit}"
    return ""


def size(size_bytes: int) -> str:
    """A number of bytes."""
    if size_bytes < 10_000:
        return f"{size_bytes} B"
    power = 1 if size_bytes < 1000 << 10 else 2 if size_bytes < 1000 << 20 else 3
    return f"{size_bytes / 1024**power:.1f} {('KiB', 'MiB', 'GiB')[power - 1]}"


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 message`, `2 messages`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
