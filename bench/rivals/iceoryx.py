"""iceoryx2: publish and subscribe with a fixed payload of 64 B, looked for without a pause; a service each way.

By the calls of its binding that cost least: the body is moved into a loaned sample and copied out of a received one by
address, without making a ctypes object of it.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import time
from pathlib import Path
from typing import Any, Final

import awake

_DEADLINE_S: Final = 10.0


def missing() -> str:
    try:
        importlib.import_module("iceoryx2")
    except ImportError:
        return awake.INSTALL_HINT
    return ""


class _Body(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint8 * awake.BODY_BYTES)]


def prepare(home: Path) -> Any:
    return os.getpid()


def finish(prepared: Any) -> None:
    pass


def open_end(prepared: Any, first: bool, mode: str) -> awake.Calls:
    iox: Any = importlib.import_module("iceoryx2")
    iox.set_log_level(iox.LogLevel.Error)
    node = iox.NodeBuilder.new().create(iox.ServiceType.Ipc)

    def service(way: str) -> Any:
        name = iox.ServiceName.new(f"agentd/bench/{prepared}/{way}")
        return node.service_builder(name).publish_subscribe(_Body).open_or_create()

    out, back = service("there" if first else "back"), service("back" if first else "there")
    publisher, subscriber = out.publisher_builder().create(), back.subscriber_builder().create()
    deadline = time.monotonic() + _DEADLINE_S
    while out.dynamic_config.number_of_subscribers == 0 or back.dynamic_config.number_of_publishers == 0:
        if time.monotonic() > deadline:
            raise SystemExit("iceoryx2: the other end does not come")
        time.sleep(0.01)
    loan, take, move, copy = publisher.loan_uninit, subscriber.receive, ctypes.memmove, ctypes.string_at

    def send(body: bytes) -> None:
        sample = loan()
        move(sample.payload_ptr, body, awake.BODY_BYTES)
        sample.assume_init().send()

    def receive() -> bytes:
        while (sample := take()) is None:
            pass
        body = copy(sample.payload_ptr, awake.BODY_BYTES)
        sample.delete()
        return body

    calls = awake.Calls(send, receive)
    calls.node = node  # type: ignore[attr-defined]  # must live as long
    return calls
