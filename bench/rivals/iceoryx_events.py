"""iceoryx2, event-driven: publish and subscribe of byte slices, and an event beside each sample for who sleeps.

The receiver sleeps in blocking_wait() of a listener and then takes all samples that are there; the publisher may not
overwrite what was not taken. The body is moved into a loaned sample, and looked at where it lies.
"""

from __future__ import annotations

import ctypes
import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import contender

_DEADLINE_S: Final = 10.0
_BUFFERED: Final = 64
_MAX_BYTES: Final = 1 << 20


def missing() -> str:
    return contender.missing_module("iceoryx2")


def start(home: Path) -> contender.Place:
    return contender.Place(home)


class Way:
    """One direction: samples, and the event that says so."""

    def __init__(self, node: Any, way: str) -> None:
        self._iox: Any = importlib.import_module("iceoryx2")
        name = self._iox.ServiceName.new(f"agentd/bench{contender.place()}/{way}")
        samples = node.service_builder(name).publish_subscribe(self._iox.Slice[ctypes.c_uint8])
        samples = samples.enable_safe_overflow(False).subscriber_max_buffer_size(_BUFFERED)
        self.samples = samples.open_or_create()
        self._events = node.service_builder(name).event().open_or_create()

    def sender(self) -> Callable[[bytes | memoryview], None]:
        wait = self._iox.BackpressureStrategy.RetryUntilDelivered
        builder = self.samples.publisher_builder().initial_max_slice_len(_MAX_BYTES)
        publisher = builder.backpressure_strategy(wait).create()
        notify, loan, move = (
            self._events.notifier_builder().create().notify,
            publisher.loan_slice_uninit,
            ctypes.memmove,
        )

        def send(body: bytes | memoryview) -> None:
            sample = loan(len(body))
            source: Any = body if isinstance(body, bytes) else ctypes.addressof(ctypes.c_char.from_buffer(body))
            move(sample.payload().as_ptr(), source, len(body))
            sample.assume_init().send()
            notify()

        return send

    def receiver(self) -> Callable[[Callable[[memoryview], None]], None]:
        """Sleeps until there is something, and hands all of it over, each for as long as the call takes."""
        subscriber = self.samples.subscriber_builder().create()
        listener = self._events.listener_builder().create()
        take, wait = subscriber.receive, listener.blocking_wait

        def receive(taken: Callable[[memoryview], None]) -> None:
            wait()
            while (sample := take()) is not None:
                taken(sample.payload().as_memory_view())
                sample.delete()

        return receive

    def await_other(self) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        while (
            self.samples.dynamic_config.number_of_subscribers == 0
            or self._events.dynamic_config.number_of_listeners == 0
        ):
            if time.monotonic() > deadline:
                raise SystemExit("iceoryx2: the other end does not come")
            time.sleep(0.01)


def _node() -> Any:
    iox: Any = importlib.import_module("iceoryx2")
    iox.set_log_level(iox.LogLevel.Error)
    return iox.NodeBuilder.new().create(iox.ServiceType.Ipc)


class Blocking:
    """Both ends."""

    @contextmanager
    def asking(self) -> Iterator[Callable[[bytes], bytes]]:
        node = _node()
        there, back = Way(node, "there"), Way(node, "back")
        send, receive = there.sender(), back.receiver()
        there.await_other()
        replies: list[bytes] = []

        def request(body: bytes) -> bytes:
            send(body)
            while not replies:
                receive(lambda reply: replies.append(bytes(reply)))
            return replies.pop()

        yield request

    def answer(self, ready: contender.Ready) -> None:
        node = _node()
        there, back = Way(node, "there"), Way(node, "back")
        receive, send = there.receiver(), back.sender()
        ready()
        while True:
            receive(send)

    @contextmanager
    def posting(self) -> Iterator[Callable[[Sequence[bytes]], int]]:
        node = _node()
        there = Way(node, "there")
        send_one = there.sender()
        there.await_other()

        def send(bodies: Sequence[bytes]) -> int:
            for body in bodies:
                send_one(body)
            return 0

        yield send

    def take(self, ready: contender.Ready, taken: contender.Taken) -> None:
        node = _node()
        receive = Way(node, "there").receiver()
        ready()
        while True:
            receive(taken)  # type: ignore[arg-type]  # a view will do


def ends(mode: str) -> Blocking:
    return Blocking()
