"""What a shell runs at each TAB: the words so far in, the words that fit out.

The scripts of `agentctl completion` start it as `python -I -S`, with nothing imported: the whole answer may take 50 ms.
They hand over the table that completion.py makes of the verbs, a line each:

    verbs so far | verb, option or word | its name, or place | what it takes | what is to be said of it

What it takes: nothing, some words, ? (anything), @files, @body (anything, or @ and the name of a file), or @ and a kind
that the daemon knows words of.
"""

from __future__ import annotations

import os
import sys
from time import monotonic

from agentd.cli.quick import COMPLETION, COMPLETION_VIEW, Quick

TYPE_CHECKING = False  # as typing has it, without importing that
if TYPE_CHECKING:
    from typing import TypeAlias

    #: A word and what is to be said of it.
    Choice: TypeAlias = tuple[str, str]

#: Python has had 20 ms by now, the finger on TAB has 50. A daemon that is busy for longer completes nothing.
PATIENCE_S = 0.025
#: Exit status: the shell shall complete the name of a file.
FILES = 3
TABLE = "_AGENTCTL_TABLE"


def main() -> None:
    """Complete the last of the words in argv. The first one says how the shell wants to be told."""
    shell, *words = sys.argv[1:]
    cut = 0
    if shell == "bash":
        breaks, text = words
        words = split(text)
        cut = max(map(words[-1].rfind, breaks), default=-1) + 1 if ":" in breaks else 0
    choices = complete(read(os.environ.get(TABLE, "")), words)
    if choices is None:
        os._exit(FILES)
    out = "".join(f"{_shown(word, about, shell, cut)}\n" for word, about in choices if word.startswith(words[-1]))
    os.write(1, out.encode(errors="replace"))
    os._exit(0)


def _shown(word: str, about: str, shell: str, cut: int) -> str:
    """A line for this shell. The text is of other agents: no control character gets to the terminal."""
    about = "".join(char if char.isprintable() else "?" for char in about)
    if shell == "bash":
        return word[cut:]
    if shell == "zsh":
        word = word.replace("\\", "\\\\").replace(":", "\\:")
        return f"{word}:{about}" if about else word
    return f"{word}\t{about}"


def split(text: str) -> list[str]:
    """A command line up to the cursor, as words without its first. bash's own splitting breaks at : and =."""
    words, word, quote, inside = [], "", "", False
    chars = iter(text)
    for char in chars:
        if quote:
            if char == quote:
                quote = ""
            else:
                word += char
        elif char in "'\"":
            quote, inside = char, True
        elif char.isspace():
            if word or inside:
                words.append(word)
            word, inside = "", False
        else:
            word += next(chars, "") if char == "\\" else char
    return [*words, word][1:]


class Table:
    """What can be said, by the verbs before it."""

    def __init__(self) -> None:
        self.verbs: dict[str, list[Choice]] = {}
        self.options: dict[str, dict[str, tuple[str, str]]] = {}  # name: what it takes, about
        self.words: dict[str, dict[str, str]] = {}  # place: what it takes


def read(text: str) -> Table:
    """The table, from its lines."""
    table = Table()
    for line in text.split("\n"):
        path, kind, name, takes, about = [*line.split("\t"), "", "", "", ""][:5]
        if kind == "verb":
            table.verbs.setdefault(path, []).append((name, about))
        elif kind == "option":
            table.options.setdefault(path, {})[name] = (takes, about)
        elif kind == "word":
            table.words.setdefault(path, {})[name] = takes
    return table


def complete(table: Table, words: list[str]) -> list[Choice] | None:
    """What fits as the last word; None for the name of a file."""
    *before, last = words or [""]
    path, place, pending, only_words = "", 1, "", False
    given = {"--as": os.environ.get("AGENTD_AGENT", "")}
    for word in before:
        if pending:
            given[pending], pending = word, ""
        elif word == "--" and not only_words:
            only_words = True
        elif word.startswith("-") and not only_words:
            name, equals, value = word.partition("=")
            if equals:
                given[name] = value
            elif table.options.get(path, {}).get(name, ("", ""))[0]:
                pending = name
        elif any(word == verb for verb, _ in table.verbs.get(path, ())):
            path = f"{path} {word}".strip()
        else:
            place += 1
    if "--socket" in given:
        os.environ["AGENTD_SOCKET"] = given["--socket"]
    options = table.options.get(path, {})
    if pending:
        return _fitting(options[pending][0], last, given["--as"])
    if last.startswith("-") and not only_words:
        name, equals, value = last.partition("=")
        if equals and name in options:
            found = _fitting(options[name][0], value, given["--as"])
            return found and [(f"{name}={word}", about) for word, about in found]
        return [(name, about) for name, (_, about) in options.items()]
    if path in table.verbs:
        return table.verbs[path]
    places = table.words.get(path, {})
    return _fitting(places.get(str(place), places.get("*", "")), last, given["--as"])


def _files(prefix: str) -> list[Choice]:
    """Names of files behind an @, which no shell completes by itself; of the only directory that fits what is in it
    too, or the shell would take its name for all."""
    where, slash, begin = prefix.rpartition("/")
    try:
        with os.scandir(where + slash or ".") as entries:
            fitting = sorted(
                (f"{where}{slash}{entry.name}", entry.is_dir())
                for entry in entries
                if entry.name.startswith(begin) and (begin or not entry.name.startswith("."))
            )
    except OSError:
        return []
    if len(fitting) == 1 and fitting[0][1] and begin:
        return [(f"@{fitting[0][0]}/", ""), *_files(f"{fitting[0][0]}/")]
    return [(f"@{name}/" if is_directory else f"@{name}", "") for name, is_directory in fitting]


def _fitting(takes: str, prefix: str, name: str) -> list[Choice] | None:
    if takes == "@files":
        return None
    if takes == "@body":
        return _files(prefix[1:]) if prefix.startswith("@") else []
    if not takes.startswith("@"):
        return [(word, "") for word in takes.split()] if takes != "?" else []
    try:
        with Quick(monotonic() + PATIENCE_S) as daemon:
            return [
                (word, about)
                for word, about in daemon.ask([COMPLETION, takes[1:], prefix, name or None], COMPLETION_VIEW)[0]
            ]
    except Exception:  # no daemon, a busy one, or one that does not know the verb: nothing to offer
        return []
