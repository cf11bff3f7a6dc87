"""horus-robotics: topics, looked at without a pause; one each way.

Its typed messages have the fields of robotics. What it offers for anything else is a dict of JSON's types, so the body
is text of 64 characters in a dict.
"""

from __future__ import annotations

import importlib
import os
import time
from pathlib import Path
from typing import Any

import awake


def missing() -> str:
    try:
        importlib.import_module("horus")
    except ImportError:
        return awake.INSTALL_HINT
    return ""


def prepare(home: Path) -> Any:
    return os.getpid()


def finish(prepared: Any) -> None:
    pass


def open_end(prepared: Any, first: bool, mode: str) -> awake.Calls:
    horus: Any = importlib.import_module("horus")
    there, back = (horus.Topic(f"agentd.bench.{prepared}.{way}") for way in ("there", "back"))
    out, into = (there, back) if first else (back, there)
    put, take = out.send, into.try_recv
    time.sleep(0.5)  # it says nowhere when both ends are there

    def send(body: bytes) -> None:
        put({"body": body.decode("latin-1")})

    def receive() -> bytes:
        while (message := take()) is None:
            pass
        return message["body"].encode("latin-1")  # type: ignore[no-any-return]

    return awake.Calls(send, receive)
