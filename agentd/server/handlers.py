"""Verb to effect: one function a verb, one line a verb in the table at the end.

A handler returns when it is done, or raises a named refusal having done nothing; the session answers that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentd.host.arguments import VERSION
from agentd.hub import completions, notices, views
from agentd.hub.receipts import DEAD, Entry
from agentd.lanes.rehearsal import rehearse
from agentd.server import halting
from agentd.wire import messages as wire
from agentd.wire.errors import LaneUnavailable, NoSuchMessage, VersionMismatch
from agentd.wire.messages import Done, Found, Joined, Welcome
from agentd.wire.names import id_text
from agentd.wire.ndjson import BadLine

if TYPE_CHECKING:
    from agentd.server.served import Handler, ServedSession

#: What is done for more messages than this at once takes time: the session looks whether others wait.
_SMALL = 16

CAPABILITIES = ["chunks", "json"]


def hello(session: ServedSession, verb: wire.Hello, now: float) -> None:
    if verb.version != wire.VERSION:
        raise VersionMismatch(
            f"{verb.client} speaks protocol version {verb.version}, agentd {VERSION} speaks {wire.VERSION}",
            "Install the same release of both.",
        )
    server = session.server
    session.hello_said()
    session.handlers = BEFORE_JOIN
    session.push(Welcome(wire.VERSION, VERSION, CAPABILITIES, server.boot, server.config.message.max_body_bytes))


def join(session: ServedSession, verb: wire.Join, now: float) -> None:
    session.server.hub.join(session, verb, now)
    if session.server.direct is not None:
        session.server.direct.joined(session)
    session.handlers = JOINED
    session.push(Joined(verb.cid, session.name))


def leave(session: ServedSession, verb: wire.Leave, now: float) -> None:
    session.push(Done(verb.cid))
    session.announced = None  # it was there to the end
    session.close("left")


def send(session: ServedSession, verb: wire.Send, now: float) -> None:
    lanes = session.server.lanes
    lane = lanes.normal if verb.options is None else lanes.choose("send", verb.options)
    lane.send(session, verb, now)


def request(session: ServedSession, verb: wire.Request, now: float) -> None:
    session.server.lanes.choose("request", verb.options).request(session, verb, now)


def reply(session: ServedSession, verb: wire.Reply, now: float) -> None:
    session.server.lanes.choose("reply", verb.options).reply(session, verb, now)


def publish(session: ServedSession, verb: wire.Publish, now: float) -> None:
    session.server.lanes.choose("publish", verb.options).publish(session, verb, now)


def subscribe(session: ServedSession, verb: wire.Subscribe, now: float) -> None:
    session.look = verb.name is not None
    session.server.hub.subscribe(session, verb, now)


def unsubscribe(session: ServedSession, verb: wire.Unsubscribe, now: float) -> None:
    session.look = True
    _done(session, verb.cid, session.server.hub.unsubscribe(session, verb, now))


def receive(session: ServedSession, verb: wire.Receive, now: float) -> None:
    session.look = verb.credit > _SMALL
    _done(session, verb.cid, session.server.hub.inboxes.receive(session, verb.credit))


def delivered(session: ServedSession, verb: wire.Delivered, now: float) -> None:
    session.look = len(verb.ids) > _SMALL
    hub = session.server.hub
    if session.cursors and (not verb.subscription or verb.subscription in session.cursors):
        hub.durables.delivered(session, verb.ids, now)
    elif verb.subscription:
        hub.topics.delivered(session, verb.subscription, verb.ids, now)
    else:
        hub.inboxes.delivered(session, verb.ids, now)


def ack(session: ServedSession, verb: wire.Ack, now: float) -> None:
    session.look = len(verb.ids) > _SMALL
    hub = session.server.hub
    settles = hub.durables if session.cursors else hub.inboxes
    _done(session, verb.cid, settles.ack(session, verb.ids, now))


def nack(session: ServedSession, verb: wire.Nack, now: float) -> None:
    hub = session.server.hub
    hub.inboxes.nack(hub.durables.taker(session, verb.id), verb.id, verb.reason, verb.after_s, now)
    _done(session, verb.cid, 1)


def reject(session: ServedSession, verb: wire.Reject, now: float) -> None:
    hub = session.server.hub
    hub.inboxes.reject(hub.durables.taker(session, verb.id), verb.id, verb.reason, now)
    _done(session, verb.cid, 1)


def give_back(session: ServedSession, verb: wire.GiveBack, now: float) -> None:
    hub = session.server.hub
    settles = hub.durables if session.cursors else hub.inboxes
    _done(session, verb.cid, settles.give_back(session, verb.ids, now))


def working(session: ServedSession, verb: wire.Working, now: float) -> None:
    hub = session.server.hub
    hub.inboxes.working(hub.durables.taker(session, verb.id), verb.id, verb.hold_s, now)
    _done(session, verb.cid, 1)


def find(session: ServedSession, verb: wire.Find, now: float) -> None:
    session.push(Found(verb.cid, session.server.hub.receipts.find(verb.prefix).message.id))


def inbox(session: ServedSession, verb: wire.Inbox, now: float) -> None:
    session.look = True
    session.push(views.inbox(session.server.hub, verb.cid, verb.name, verb.limit))


def trace(session: ServedSession, verb: wire.Trace, now: float) -> None:
    receipts = session.server.hub.receipts
    session.push(receipts.trace(verb.cid, receipts.get(verb.id)))


def agents(session: ServedSession, verb: wire.Agents, now: float) -> None:
    session.look = True
    session.push(views.agents(session.server.hub, verb.cid, now))


def status(session: ServedSession, verb: wire.Status, now: float) -> None:
    session.look = True
    session.push(session.server.status(verb.cid, now))


def stats(session: ServedSession, verb: wire.Stats, now: float) -> None:
    session.look = True
    session.push(session.server.measures.stats(verb.cid, now, agents=verb.agents))


def dead(session: ServedSession, verb: wire.Dead, now: float) -> None:
    session.look = True
    session.push(views.dead(session.server.hub, verb.cid, verb.name, verb.limit))


def requeue(session: ServedSession, verb: wire.Requeue, now: float) -> None:
    session.look = True
    hub = session.server.hub
    letters = [_dead_letter(session, id) for id in dict.fromkeys(verb.ids)]
    hub.inboxes.check_all_room(letters, now)
    for entry in letters:
        hub.inboxes.requeue(entry, now, session.name)
    _done(session, verb.cid, len(letters))


def drop(session: ServedSession, verb: wire.Drop, now: float) -> None:
    session.look = True
    hub = session.server.hub
    letters = [_dead_letter(session, id) for id in dict.fromkeys(verb.ids)]
    for entry in letters:
        hub.dead.drop(entry, now)
    _done(session, verb.cid, len(letters))


def forget(session: ServedSession, verb: wire.Forget, now: float) -> None:
    session.server.hub.agents.forget(verb.name)
    _done(session, verb.cid, 1)


def notice(session: ServedSession, verb: wire.Notice, now: float) -> None:
    session.push(notices.notice(session.server.hub, session, verb))


def completion(session: ServedSession, verb: wire.Completion, now: float) -> None:
    session.push(completions.completion(session.server.hub, verb, now))


def choose(session: ServedSession, verb: wire.Choose, now: float) -> None:
    server = session.server
    session.push(rehearse(server.lanes, server.hub, session, verb, now))


def attach(session: ServedSession, verb: wire.Attach, now: float) -> None:
    direct = session.server.direct
    if direct is None:
        raise LaneUnavailable("This agentd has no shared memory between agents", "Messages are relayed.")
    session.push(direct.attachment(session, verb.cid))


def halt(session: ServedSession, verb: wire.Halt, now: float) -> None:
    session.look = True
    session.push(halting.halt(session, verb))


def pause(session: ServedSession, verb: wire.Pause, now: float) -> None:
    server = session.server
    agent = server.hub.agents.get(verb.name)
    server.hub.inboxes.pause(agent, on=verb.on)
    if server.direct is not None:
        server.direct.pause(agent, on=verb.on)
    _done(session, verb.cid)


def bad_line(session: ServedSession, verb: BadLine, now: float) -> None:
    raise verb


def _done(session: ServedSession, cid: int, count: int = 0) -> None:
    if cid:
        session.push(Done(cid, count))


def _dead_letter(session: ServedSession, id: int) -> Entry:
    entry = session.server.hub.receipts.get(id)
    if entry.state is not DEAD or id not in entry.agent.dead:
        raise NoSuchMessage(
            f"Message {id_text(id)} is {entry.state.value}, no dead letter", "`agentctl dead` lists them."
        )
    return entry


BEFORE_HELLO: dict[type, Handler] = {wire.Hello: hello, BadLine: bad_line}

BEFORE_JOIN: dict[type, Handler] = {
    BadLine: bad_line,
    wire.Join: join,
    wire.Leave: leave,
    wire.Find: find,
    wire.Inbox: inbox,
    wire.Trace: trace,
    wire.Agents: agents,
    wire.Status: status,
    wire.Stats: stats,
    wire.Dead: dead,
    wire.Notice: notice,
    wire.Completion: completion,
}

JOINED: dict[type, Handler] = {
    **BEFORE_JOIN,
    wire.Send: send,
    wire.Request: request,
    wire.Reply: reply,
    wire.Publish: publish,
    wire.Subscribe: subscribe,
    wire.Unsubscribe: unsubscribe,
    wire.Receive: receive,
    wire.Delivered: delivered,
    wire.Ack: ack,
    wire.Nack: nack,
    wire.Reject: reject,
    wire.GiveBack: give_back,
    wire.Working: working,
    wire.Requeue: requeue,
    wire.Drop: drop,
    wire.Forget: forget,
    wire.Choose: choose,
    wire.Attach: attach,
    wire.Halt: halt,
    wire.Pause: pause,
}
