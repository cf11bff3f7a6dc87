"""Zenoh: two peers that know each other's Unix socket, no router; large bodies by its shared memory, its default.

Both ends sleep in recv() of a subscriber's channel. A publisher that may not drop (congestion control "block") and
that sends each message at once (express) where one waits for its answer.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import contender

_DEADLINE_S: Final = 10.0
_THERE: Final = "there"
_BACK: Final = "back"
#: It says nowhere when the other end knows of a subscriber.
_SETTLE_S: Final = 0.5


def missing() -> str:
    return contender.missing_module("zenoh")


def start(home: Path) -> contender.Place:
    return contender.Place(home)


def _open(role: str) -> Any:
    zenoh = importlib.import_module("zenoh")
    config = zenoh.Config()
    config.insert_json5("mode", json.dumps("peer"))
    config.insert_json5("scouting/multicast/enabled", "false")
    config.insert_json5("transport/shared_memory/mode", json.dumps("init"))
    config.insert_json5(f"{role}/endpoints", json.dumps([f"unixsock-stream/{contender.place()}/zenoh"]))
    return zenoh.open(config)


def _publisher(session: Any, key: str, express: bool) -> Any:
    block = importlib.import_module("zenoh").CongestionControl.BLOCK
    return session.declare_publisher(key, congestion_control=block, express=express)


def _await_other(publisher: Any) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not publisher.matching_status.matching:
        if time.monotonic() > deadline:
            raise SystemExit("zenoh: the other end does not come")
        time.sleep(0.01)
    time.sleep(_SETTLE_S)


class Blocking:
    """Both ends."""

    @contextmanager
    def asking(self) -> Iterator[Callable[[bytes], bytes]]:
        with _open("connect") as session:
            subscriber = session.declare_subscriber(_BACK)
            publisher = _publisher(session, _THERE, True)
            _await_other(publisher)

            def request(body: bytes) -> bytes:
                publisher.put(body)
                reply: bytes = subscriber.recv().payload.to_bytes()
                return reply

            yield request

    def answer(self, ready: contender.Ready) -> None:
        with _open("listen") as session:
            subscriber = session.declare_subscriber(_THERE)
            publisher = _publisher(session, _BACK, True)
            ready()
            while True:
                publisher.put(subscriber.recv().payload)

    @contextmanager
    def posting(self) -> Iterator[Callable[[Sequence[bytes]], int]]:
        with _open("connect") as session:
            publisher = _publisher(session, _THERE, False)
            _await_other(publisher)

            def send(bodies: Sequence[bytes]) -> int:
                for body in bodies:
                    publisher.put(body)
                return 0

            yield send

    def take(self, ready: contender.Ready, taken: contender.Taken) -> None:
        with _open("listen") as session:
            subscriber = session.declare_subscriber(_THERE)
            ready()
            while True:
                taken(subscriber.recv().payload.to_bytes())


def ends(mode: str) -> Blocking:
    return Blocking()
