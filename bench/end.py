"""One end of a measurement, in a process of its own: told by lines of JSON on its stdin, answering by such lines."""

from __future__ import annotations

import json
import select
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import process

_ANSWER_S: Final = 60.0


class End:
    """From here. It dies with us."""

    def __init__(self, what: str, program: Path, *words: object, environ: Mapping[str, str] | None = None) -> None:
        """`what` is what to call it when it fails."""
        self._what = what
        self.child = process.spawn([sys.executable, str(program), *map(str, words)], environ)

    def tell(self, command: object) -> None:
        """One command."""
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(command) + "\n")
        self.child.stdin.flush()

    def hear(self) -> Any:
        """Its next answer. RuntimeError when it failed instead: the reason is on stderr."""
        out = self.child.stdout
        assert out is not None
        if not select.select([out], [], [], _ANSWER_S)[0]:  # an end never has two answers under way
            raise RuntimeError(f"{self._what}: no answer within {_ANSWER_S:g} s; a message is missing")
        line = out.readline()
        if not line:
            raise RuntimeError(f"{self._what}: this end failed with status {self.child.wait()}")
        return json.loads(line)

    def ask(self, command: object) -> Any:
        """Both."""
        self.tell(command)
        return self.hear()

    def close(self) -> None:
        """End it."""
        process.stop(self.child)
