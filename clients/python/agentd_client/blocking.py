"""The blocking face: the same names without await, on one plain socket.

A client belongs to the thread that entered it. It reads and writes only inside its calls: what is posted travels when
16 KiB are together, with the next call that waits, on flush() and on leaving. One that only sends joins together with
its first call, so that one verb costs one round trip; that call raises what joining was refused with.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from agentd.wire import messages as wire
from agentd.wire.messages import GiveBack, Nack, Working
from agentd.wire.names import id_text
from agentd_client._blocking_channel import Channel as Channel
from agentd_client._blocking_subscription import Subscription as Subscription
from agentd_client._conversation import Conversation
from agentd_client._feeds import Feed
from agentd_client._joining import Place, check_lane, find_socket, find_stand_in, make_join
from agentd_client._lazily import make_handler, make_receiver
from agentd_client._mail import Window
from agentd_client._socket import Plug
from agentd_client._verbs import Verbs
from agentd_client.message import Received, failure
from agentd_client.receipt import Posted, Receipt

if TYPE_CHECKING:
    from threading import Event
    from typing import Unpack

    from agentd_client._direct import Direct
    from agentd_client._options import FileOptions, FilePath, PostOptions, SendOptions
    from agentd_client._receiver import Handler, Receiver, ThreadMessage

#: How long leaving waits for the answers to posts.
CLOSE_S: Final = 5.0
#: In a fast loop over inbox(), what was handed over is said so often.
SAY_S: Final = 0.001


def _nothing() -> None:
    """Nothing is written outside a call."""


def connect(
    name: str | None = None,
    *,
    share: bool = False,
    replace: bool = False,
    take: bool | None = None,
    socket: Place = None,
    timeout: float = 10.0,
) -> Client:
    """A client for `with`. A name that is given takes its mail; with take=False it is only sent as. Without a
    name: AGENTD_AGENT if set, to send as only, else anonymous. `timeout` bounds every answer that has no other."""
    return Client(name, share=share, replace=replace, take=take, socket=socket, timeout=timeout)


class Ticket(Posted, eq=False):
    """A post on its way. A failure that nobody waited for is raised on leaving."""

    client: Any = None

    def wait(self, timeout: float | None = None) -> Receipt:
        """The receipt, or the error raised; Timeout when the answer is not there in time."""
        self.client.drive(self.client.verbs.wait(self, timeout))
        return self.outcome()


class Message(Received, eq=False):
    """A message, and the verbs that answer it. `with message:` acks on a clean exit, nacks on an exception and
    gives it back on Ctrl-C."""

    def ack(self) -> None:
        """Done with it. Once is enough, twice does no harm. In a loop over inbox() it travels with the next read."""
        self.client.conversation.ack(self)
        if self.window is None:
            self.client.say()

    def nack(self, reason: str = "", after: float = 0.0) -> None:
        """Not now: it comes back, at the earliest after that many seconds, one attempt gone."""
        self.client.drive(self.client.verbs.settle(self, wire.Nack, reason, after))

    def reject(self, reason: str = "") -> None:
        """Never: it is a dead letter now."""
        self.client.drive(self.client.verbs.settle(self, wire.Reject, reason))

    def give_back(self) -> None:
        """Not wanted after all: to the front of the inbox, no attempt counted."""
        self.client.conversation.mail.settle(self, GiveBack(0, [self.wire.id]))
        self.client.say()

    def working(self) -> None:
        """Still at it."""
        self.client.conversation.out.say(Working(0, self.wire.id))
        self.client.say()

    def reply(self, body: object, timeout: float | None = None, **options: Unpack[PostOptions]) -> Receipt:
        """Answer, and ack. After an ack too."""
        receipt: Receipt = self.client.drive(self.client.verbs.reply(self, body, timeout, options))
        return receipt

    def __enter__(self) -> Message:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.settled:
            return
        conversation = self.client.conversation
        if kind is None:
            self.ack()
        elif conversation.closed is None:
            id = self.wire.id
            conversation.mail.settle(
                self, Nack(0, id, failure(error)) if issubclass(kind, Exception) else GiveBack(0, [id])
            )
            self.client.say()


def _direct_message() -> type:
    from agentd_client._blocking_message import DirectMessage

    return DirectMessage


class Inbox:
    """The messages of a name, each when it is there, up to `window` of them unsettled. Leaving the loop gives back what
    was not seen."""

    def __init__(self, client: Client, size: int) -> None:
        self._client = client
        self._conversation = client.conversation
        self._window = Window(self._conversation, size)
        self._mail = self._conversation.mail
        self._said_at = 0.0

    def __iter__(self) -> Inbox:
        return self

    def __next__(self) -> Message:
        window = self._window
        mail = self._mail
        while window.unsettled >= window.limit or (taken := mail.next()) is None:
            if self._conversation.left:
                raise StopIteration
            self._client.drive(window.wait())
            self._said_at = 0.0
        message = self._conversation.hand_over(taken, window)
        # The daemon hears of it before the application works on it, or what kills its taker would never be counted.
        # In a fast loop those that follow may be said together.
        if (now := monotonic()) - self._said_at > SAY_S:
            self._said_at = now
            self._client.say()
        return message

    def close(self) -> None:
        """Take no more."""
        self._window.close()
        self._client.say()

    def __del__(self) -> None:
        self._window.close()


class Client:
    """An agent, as its own process sees it. Use it from one thread. Ids are given as text, of which any beginning
    that only one message has will do, or as the numbers that views hold."""

    in_loop = False
    stops_anywhere = True  # any thread may set `stopping`

    def __init__(
        self,
        name: str | None,
        *,
        share: bool,
        replace: bool,
        take: bool | None,
        socket: Place,
        timeout: float,
    ) -> None:
        stand_in = find_stand_in(socket)
        self._plug = Plug(find_socket(socket)) if stand_in is None else stand_in.plug()
        join = make_join(name, share, replace, take)
        self.conversation: Conversation[Message, Ticket] = Conversation(
            join, self, Message, self._ticket, _nothing, _nothing, self._plug.say
        )
        self.conversation.io = self._plug
        self.conversation.record = _direct_message
        self.conversation.may_attach = stand_in is None
        self.verbs = Verbs(self.conversation, timeout)
        self._stopping: Event | None = None
        self._handler: Handler | None = None
        self.drive = self._plug.drive
        self.say = self._plug.say

    def __enter__(self) -> Client:
        self._plug.open(self.conversation)
        if self.conversation.taking:
            try:
                self.drive(self.verbs.join())
            except BaseException:
                self._plug.close()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        timeout = CLOSE_S if kind is None else 0.0
        try:
            if self._handler is not None:
                self._handler.close(timeout)
            self.drive(self.verbs.leave(timeout))
        finally:
            self.conversation.leave()
            self._plug.close()
        failed = self.conversation.posts.unread()
        if kind is None and failed is not None:
            raise failed

    def _ticket(self, cid: int) -> Ticket:
        return Ticket(cid, client=self)

    @property
    def name(self) -> str | None:
        """The name that others know us by."""
        return self.conversation.name

    # Talk.

    def send(self, to: str, body: object, *, timeout: float | None = None, **options: Unpack[PostOptions]) -> Receipt:
        """One message to one agent; waits for room, and for the state that `wait` names, until `timeout`."""
        return self.drive(self.verbs.send(to, body, timeout, options))

    def post(self, to: str, body: object, **options: Unpack[PostOptions]) -> Ticket:
        """The same without waiting: the ticket for the receipt. Backpressure when too many are unanswered."""
        return self.conversation.post(to, body, **options)

    def choose(
        self, to: str, body: object, *, verb: wire.Kind | str = "send", **options: Unpack[PostOptions]
    ) -> wire.ChoiceView:
        """Which way that would take now, and why: nothing is sent. Raises what sending it would be refused with."""
        view: wire.ChoiceView = self.drive(self.verbs.choose(to, body, verb, options))
        return view

    def request(self, to: str, body: object, timeout: float = 30.0, **options: Unpack[SendOptions]) -> Message:
        """Ask, and get the reply. NoResponder at once where nobody would reply."""
        reply = self.drive(self.verbs.request(to, body, timeout, options))
        self.say()
        return Message(reply, self, None, True)

    def publish(
        self, topic: str, body: object, *, timeout: float | None = None, **options: Unpack[SendOptions]
    ) -> Receipt:
        """An event to whoever subscribes; the receipt says how many have it and who had no room."""
        return self.drive(self.verbs.publish(topic, body, timeout, options))

    def subscribe(self, pattern: str, start: str = "new", name: str | None = None, window: int = 1) -> Subscription:
        """Events whose topic matches, for `with` and `for`. With a name those wait that come while nobody
        is there, and each is yours until it is settled: by its own verbs, or as done when you ask for the next. A new
        one can begin with what is on record: start="all", an age such as "-5m", or the id of an event."""
        return Subscription(self, Feed(self.conversation, pattern, start, name, window))

    def unsubscribe(self, name: str) -> int:
        """End the durable subscription of that name for good, with what waits for it; how many messages these were."""
        return int(self.drive(self.verbs.call(wire.Unsubscribe, 0, name)).count)

    def receive(self, timeout: float | None = None) -> Message | None:
        """One message, or None when the time is over first."""
        message = self.drive(self.verbs.receive(timeout))
        if message is None:
            return None
        received = self.conversation.hand_over(message, None)
        self.say()
        return received

    def inbox(self, window: int = 1) -> Inbox:
        """Messages, for `for`; up to `window` are here at a time."""
        return Inbox(self, window)

    # Shared memory.

    def send_file(self, to: str, path: FilePath, **options: Unpack[FileOptions]) -> Receipt:
        """A file of any size to one live agent; waits until it has saved it whole. Any other end is an error."""
        return self.drive(self.verbs.send_file(to, path, **options))

    @property
    def stopping(self) -> Event:
        """Set when somebody asks this agent to stop (`agentctl halt`): heard inside calls, and at once while
        shared memory is read, by receiver() or on_critical()."""
        if self._stopping is None:
            from threading import Event

            self._stopping = Event()
        return self._stopping

    def channel(self, to: str, lane: str = "critical") -> Channel:
        """A pair to one live session of that agent, for `with`."""
        return Channel(self, to, lane)

    def receiver(self, lane: str = "critical") -> Receiver:
        """The lane's mail alone, for `with`: inbox() does not get it meanwhile. LaneBusy while another has it. The
        receiver may then be used in one other thread."""
        which = check_lane(lane)
        return make_receiver(self.attach().readings[which], self)

    def on_critical(self, handler: Callable[[ThreadMessage], Any], *, pin: bool = True) -> None:
        """Call it with each critical message, in a thread of its own on a fast core; returning acks, raising ends the
        message as dead."""
        self._handler = make_handler(self.attach().readings[check_lane("critical")], handler, pin)

    def attach(self) -> Direct:
        """Share memory from now on: before, direct messages are relayed here and no file can come."""
        if not self.conversation.joining.settled:
            self.drive(self.verbs.join())
        self.conversation.check_taking()
        direct = self.conversation.go_direct()
        self.drive(direct.attach(monotonic() + self.verbs.answer_s))
        return direct

    # One message, by id.

    def ack(self, id: str | int) -> None:
        """Done with it."""
        self.drive(self.verbs.on_ids(wire.Ack, [id]))

    def nack(self, id: str | int, reason: str = "", after: float = 0.0) -> None:
        """Not now: it comes back, one attempt gone."""
        self.drive(self.verbs.on_id(wire.Nack, id, reason, after))

    def reject(self, id: str | int, reason: str = "") -> None:
        """Never: it is a dead letter now."""
        self.drive(self.verbs.on_id(wire.Reject, id, reason))

    def give_back(self, id: str | int) -> None:
        """Not wanted after all."""
        self.drive(self.verbs.on_ids(wire.GiveBack, [id]))

    def reply(
        self, id: str | int, body: object, timeout: float | None = None, **options: Unpack[PostOptions]
    ) -> Receipt:
        """Answer, and ack."""
        return self.drive(self.verbs.reply(id, body, timeout, options))

    def working(self, id: str | int) -> None:
        """Still at it."""
        self.drive(self.verbs.on_id(wire.Working, id))

    def hold(self, id: str | int, seconds: float) -> None:
        """Keep it that long, even when this process ends."""
        self.drive(self.verbs.on_id(wire.Working, id, seconds))

    def find(self, prefix: str) -> str:
        """The whole id of the one message whose id begins so."""
        return id_text(self.drive(self.verbs.id(prefix)))

    # See and care.

    def trace(self, id: str | int) -> wire.TraceView:
        """What happened to a message."""
        view: wire.TraceView = self.drive(self.verbs.on_id(wire.Trace, id))
        return view

    def look(self, name: str, limit: int = 100) -> wire.InboxView:
        """What waits in an inbox; takes nothing."""
        view: wire.InboxView = self.drive(self.verbs.call(wire.Inbox, name, limit))
        return view

    def notice(self, name: str) -> wire.NoticeView:
        """Whose mail waits for a name and was not announced before; takes nothing. It is announced once, counted from a
        clean exit, or from the next notice."""
        return self.drive(self.verbs.notice(name))

    def agents(self) -> wire.AgentsView:
        """Everybody known, those in trouble first."""
        view: wire.AgentsView = self.drive(self.verbs.call(wire.Agents))
        return view

    def status(self) -> wire.StatusView:
        """The daemon in brief."""
        view: wire.StatusView = self.drive(self.verbs.call(wire.Status))
        return view

    def stats(self, *, agents: bool = False) -> wire.StatsView:
        """Its counters; with `agents` a row for each of the busiest."""
        view: wire.StatsView = self.drive(self.verbs.call(wire.Stats, agents))
        return view

    def dead(self, name: str | None = None, limit: int = 100) -> wire.DeadView:
        """Dead letters, newest first."""
        view: wire.DeadView = self.drive(self.verbs.call(wire.Dead, name, limit))
        return view

    def requeue(self, ids: list[str | int] | list[str] | list[int]) -> int:
        """Put dead letters back into their inboxes; how many."""
        return self.drive(self.verbs.on_ids(wire.Requeue, ids))

    def drop(self, ids: list[str | int] | list[str] | list[int]) -> int:
        """Give dead letters up for good; how many."""
        return self.drive(self.verbs.on_ids(wire.Drop, ids))

    def forget(self, name: str) -> None:
        """Forget a name that is not live and has no mail."""
        self.drive(self.verbs.call(wire.Forget, name))

    def halt(self, name: str, step: wire.Step | str = wire.Step.ASK, reason: str = "") -> wire.HaltView:
        """Stop an agent: ask its sessions, or signal their processes; the sessions that were there."""
        view: wire.HaltView = self.drive(self.verbs.call(wire.Halt, name, step, reason))
        return view

    def pause(self, name: str, on: bool = True) -> None:
        """Give that agent nothing, or its mail again with on=False."""
        self.drive(self.verbs.call(wire.Pause, name, on))
