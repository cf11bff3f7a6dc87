"""The verbs that go from ring to ring, in steps: send, post, request, and waiting for a delivery."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from time import monotonic
from typing import TYPE_CHECKING, Final

from agentd import _native
from agentd.wire import messages as wire
from agentd.wire import records
from agentd.wire.bodies import Content, encode_body
from agentd.wire.errors import (
    AgentdError,
    Backpressure,
    BadRequest,
    NoResponder,
    NotOnThisLane,
    Rejected,
    Timeout,
    TooManyHops,
)
from agentd.wire.messages import Options, Route, State
from agentd_client._asked import Question
from agentd_client._options import may_go_direct
from agentd_client._pairs import Outgoing
from agentd_client._refusals import RETRY_S
from agentd_client.receipt import Call, Receipt, Steps, Submitted, ended

if TYPE_CHECKING:
    from agentd_client._direct import Direct

#: Deliveries are looked for at first so often, then more seldom: nobody rings for them.
_FIRST_LOOK_S: Final = 50e-6
_LAST_LOOK_S: Final = 5e-3
#: Before that at each turn of the loop: an awake receiver has it by then, and a loop's timers count milliseconds.
_QUICK_LOOKS: Final = 20
#: As message.max_hops; the daemon is not asked on this lane.
_MAX_HOPS: Final = 32


def check(options: Options) -> None:
    """NotOnThisLane for what a direct lane can't do."""
    lane = options.priority.value
    if options.key is not None:
        raise NotOnThisLane(f"The {lane} lane knows no idempotency keys", "It never sends a message twice.")
    if options.delay is not None or options.at is not None:
        raise NotOnThisLane(f"The {lane} lane keeps nothing for later", "Priority normal and low take a delay.")
    if options.level is not None or options.wait is State.STORED:
        raise NotOnThisLane(f"The {lane} lane stores nothing", "Priority low does, and normal with durable.")
    if options.hops > _MAX_HOPS:
        raise TooManyHops(f"This message was passed on {options.hops} times, more than {_MAX_HOPS}")


def _details(options: Options) -> bytes:
    if not (options.headers or options.re is not None or options.hops):
        return b""
    hops = options.hops if options.re is None else max(options.hops, 1)
    details = wire.Details(headers=options.headers, re=options.re, thread=options.re, hops=hops)
    return records.encode_details(details)


def _deadline_ns(ttl: float | None) -> int:
    return 0 if ttl is None else _native.boottime_ns() + int(ttl * 1e9)


def send(direct: Direct, to: str, body: object, timeout: float | None, options: Options) -> Steps[Receipt | None]:
    """One message; None where it must be relayed."""
    check(options)
    until = None if timeout is None else monotonic() + timeout
    content, data = encode_body(body)
    direct.check_size(len(data))
    channel = yield from direct.cached(to, options.priority, until, demanded=options.route is Route.DIRECT)
    if channel is None:
        return None
    call = Submitted(0, waits_for=options.wait)
    details, deadline_ns = _details(options), _deadline_ns(options.ttl)
    while True:
        try:
            position = channel.ticket(call, data, content, 0, details, deadline_ns)
            break
        except Backpressure as error:
            pause = error.retry_after or RETRY_S
            if until is not None and monotonic() + pause >= until:
                raise
            yield Call(0), monotonic() + pause
    if options.wait is State.ACCEPTED:
        return call.known()
    channel.flush()
    channel.look()  # from now on the receiver rings when it has said what became of it
    if options.wait is State.DELIVERED:
        yield from _until_delivered(channel, call, position, until)
    while not call.settled:
        if until is not None and monotonic() >= until:
            late = Timeout(f"Message {call.known().id} was not {options.wait} in time. It stays accepted")
            late.receipt = call.known()
            raise late
        yield call, until
    return ended(call)


def _pauses() -> Iterator[float]:
    """How long to wait before each look at whether a record was taken."""
    yield from repeat(0.0, _QUICK_LOOKS)
    pause = _FIRST_LOOK_S
    while True:
        yield pause
        pause = min(2 * pause, _LAST_LOOK_S)


def _until_delivered(channel: Outgoing, call: Submitted, position: int, until: float | None) -> Steps[None]:
    pauses = _pauses()
    while not call.settled and (until is None or monotonic() < until):
        if not channel.gone and channel.is_delivered(position):
            channel.tell(call, position, State.DELIVERED)
            call.settled = True
            return
        yield call, monotonic() + next(pauses)


def delivered(channel: Outgoing, position: int, timeout: float | None) -> Steps[bool]:
    """Whether the receiver has taken the record at that position; waits for it."""
    until = None if timeout is None else monotonic() + timeout
    call = Submitted(0, waits_for=State.DELIVERED)
    channel.flush()
    for pause in _pauses():
        if channel.is_delivered(position):
            return True
        if channel.gone or channel.state == "closed" or (until is not None and monotonic() >= until):
            return False
        yield call, monotonic() + pause
    raise AssertionError("the pauses have no end")


def post(direct: Direct, ticket: Submitted, to: str, content: Content, data: bytes, options: Options) -> bool:
    """The same without waiting, where a channel is open; False where it must be relayed."""
    if not may_go_direct("send", options):
        return False
    channel = direct.open_channel(to, options.priority)
    if channel is None:
        return False
    check(options)
    ticket.waits_for = options.wait
    channel.ticket(ticket, data, content, 0, _details(options), _deadline_ns(options.ttl))
    if options.wait is State.ACCEPTED:
        ticket.settle()
    else:
        channel.flush()
        channel.look()
    return True


def request(direct: Direct, to: str, body: object, timeout: float, options: Options) -> Steps[wire.Message]:
    """A record that wants a reply, and the reply, which comes with the verdict."""
    check(options)
    if options.wait is not State.ACCEPTED:
        raise BadRequest("A request takes no wait", "Its answer is the reply, or why there is none.")
    until = monotonic() + timeout
    content, data = encode_body(body)
    direct.check_size(len(data))
    channel = yield from direct.cached(to, options.priority, until, demanded=True)
    assert channel is not None
    call = Question(0, waits_for=State.ACKED)
    deadline_ns = _deadline_ns(options.ttl if options.ttl is not None else timeout)
    position = channel.ticket(call, data, content, records.REQUEST, _details(options), deadline_ns)
    channel.flush()
    channel.look()
    while not call.settled:  # if nobody waits any more, the room for its verdict stays taken until that has come
        if monotonic() >= until:
            raise Timeout(f"{to} has not replied in {timeout:g} s")
        yield call, until
    if call.reply is None:
        raise _why_not(to, call)
    reply_content, reply = call.reply
    id = _native.message_id(channel.number, position)
    return wire.Message(
        id,
        channel.agent,
        channel.provenance,
        reply_content,
        reply,
        call.answer.at,
        lane=channel.lane,
        details=wire.Details(re=id, thread=id, hops=1),
    )


def _why_not(to: str, call: Question) -> AgentdError:
    state, note = call.answer.state, call.answer.note
    if state is State.ACKED:
        return NoResponder(f"{to} acked the request and did not reply", "A reply acks, too.")
    if state is State.DEAD and not note.startswith(f"{to}: "):
        return Rejected(note or f"{to} has rejected it")
    return NoResponder(f"{to} did not reply: {note or state.value}", "Nobody else will.")
