"""The verbs that take more than one step, without I/O: each is written once, here, and driven by both faces.

See receipt.Steps for what they yield.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from agentd.wire import messages as wire
from agentd.wire.bodies import encode_body
from agentd.wire.errors import (
    AgentdError,
    Backpressure,
    BadRequest,
    LimitReached,
    RateLimited,
    Timeout,
    Unreachable,
    from_wire,
)
from agentd.wire.frames import CHUNK_BYTES
from agentd.wire.messages import Priority, Route, State
from agentd.wire.names import ID_LETTERS, id_value
from agentd_client._options import checked, make_options, may_go_direct, told_later
from agentd_client.receipt import Call, Receipt, Steps, Submitted, ended

if TYPE_CHECKING:
    from agentd_client._conversation import Conversation
    from agentd_client._direct import Direct
    from agentd_client._feeds import Feed
    from agentd_client._options import FilePath, PostOptions, Progress, SendOptions
    from agentd_client.message import Received

#: How long after a request's own time the daemon is waited for: it answers in time, this is a net.
_NET_S: Final = 1.0
_FIRST_PAUSE_S: Final = 0.05
_ACCEPTED: Final = State.ACCEPTED


def deadline(timeout: float | None) -> float | None:
    """The moment at which `timeout` is over."""
    return None if timeout is None else monotonic() + timeout


def _is_over(until: float | None) -> bool:
    return until is not None and monotonic() >= until


class Verbs:
    """`answer_s` is how long the daemon may take to answer a verb that has no time of its own."""

    def __init__(self, conversation: Conversation[Any, Any], answer_s: float) -> None:
        self._conversation = conversation
        self.answer_s = answer_s
        self._announced = False  # the daemon waits to hear that what it announced was shown

    def _connection(self, until: float | None) -> Steps[None]:
        """Until what is said can reach the daemon."""
        conversation = self._conversation
        while not conversation.ready:
            conversation.check()
            if _is_over(until):
                raise conversation.unreachable()
            yield conversation.back, until
        conversation.check()

    def _fits(self, data: bytes, until: float | None) -> Steps[None]:
        """TooLarge before the bytes travel. Something large waits until the daemon has said what its limit is."""
        conversation = self._conversation
        if len(data) > CHUNK_BYTES and not conversation.joining.settled:
            yield conversation.joining, until
        conversation.check_size(len(data))

    # One verb, one answer.

    def call(self, kind: type[Any], *fields: Any) -> Steps[Any]:
        """Say a verb and take its answer."""
        until = deadline(self.answer_s)
        yield from self._connection(until)
        return (yield from self._answer(Call(self._conversation.next_cid()), kind, fields, until))

    def _answer(self, call: Call, kind: type[Any], fields: tuple[Any, ...], until: float | None) -> Steps[Any]:
        verb = checked(kind(call.cid, *fields))
        self._conversation.out.say(verb)
        self._conversation.open(call)
        try:
            while not call.settled:
                if _is_over(until):
                    raise Timeout(f"agentd has not answered in time; whether {kind.__name__} was done is unknown")
                yield call, until
        finally:
            self._conversation.forget(call)
        if call.error is not None:
            raise call.error
        return call.answer

    def id(self, id: str | int) -> Steps[int]:
        """The number of an id, which may be a prefix that only one message has."""
        if isinstance(id, int):
            return id
        if len(id) == ID_LETTERS:
            return id_value(id)
        return int((yield from self.call(wire.Find, id)).id)

    def on_id(self, kind: type[Any], id: str | int, *fields: Any) -> Steps[Any]:
        """A verb on one message."""
        number = yield from self.id(id)
        return (yield from self.call(kind, number, *fields))

    def on_ids(self, kind: type[Any], ids: Sequence[str | int]) -> Steps[int]:
        """A verb on several messages; how many it touched."""
        numbers = []
        for id in ids:
            numbers.append((yield from self.id(id)))  # noqa: PERF401
        return int((yield from self.call(kind, numbers)).count)

    def settle(self, received: Received, kind: type[Any], *fields: Any) -> Steps[None]:
        """Nack or reject, once; the caller hears it if the message is not ours any more."""
        conversation = self._conversation
        verb = checked(kind(0, received.wire.id, *fields))
        if received.settled:
            return
        conversation.check()
        conversation.mail.settled(received, seen=True)
        yield from self.call(type(verb), received.wire.id, *fields)

    # What ends in a receipt.

    def send(self, to: str, body: object, timeout: float | None, given: PostOptions) -> Steps[Receipt]:
        """One message to one agent: from ring to ring where its priority asks for that and there are rings."""
        if given and "priority" in given and (options := make_options(given)) is not None:
            direct = self._direct_for(options)
            if direct is not None:
                from agentd_client import _ringing

                until = deadline(timeout)
                receipt = yield from _ringing.send(direct, to, body, timeout, options)
                if receipt is not None:
                    return receipt
                timeout = None if until is None else max(0.0, until - monotonic())
        return (yield from self._submit(wire.Send, to, body, timeout, given))

    def _direct_for(self, options: wire.Options) -> Direct | None:
        """What carries it directly; None where it goes through agentd. A client that has no shared memory yet gets some
        with its first message in asyncio, with its second in the blocking face, or where it is demanded: a command that
        sends one message is relayed sooner."""
        conversation = self._conversation
        if not may_go_direct("send", options):
            return None
        again, conversation.eager = conversation.eager, conversation.may_attach
        demanded = options.route is Route.DIRECT
        if conversation.direct is None and (again or demanded):
            try:
                conversation.go_direct()
            except LimitReached:
                if demanded:
                    raise
        return conversation.direct

    def send_file(
        self,
        to: str,
        path: FilePath,
        *,
        name: str | None = None,
        timeout: float | None = None,
        wait: State | str = State.DELIVERED,
        ttl: float | None = None,
        progress: Progress | None = None,
    ) -> Steps[Receipt]:
        """A file to one agent, through shared memory; this client gets some where it has none."""
        from agentd_client._sending import send_file

        options = make_options({"priority": Priority.HIGH, "wait": wait, "ttl": ttl})
        assert options is not None
        yield from self.join()
        direct = self._conversation.go_direct()
        return (yield from send_file(direct, to, path, name, timeout, options, progress))

    def choose(self, to: str, body: object, verb: wire.Kind | str, given: PostOptions) -> Steps[wire.ChoiceView]:
        """The way that this would take now; the error that it would end with."""
        _, data = encode_body(body)
        options = make_options(given)
        attached = options is not None and self._would_attach(verb, options)
        until = deadline(self.answer_s)
        yield from self._connection(until)
        if not attached:
            yield from self._fits(data, until)
        view: wire.ChoiceView = yield from self.call(wire.Choose, to, len(data), verb, options, attached)
        if view.refusal is not None:
            refusal = view.refusal
            error = from_wire(refusal.code, refusal.message, refusal.hint, refusal.retry_after)
            error.row = view.row
            raise error
        return view

    def _would_attach(self, verb: str, options: wire.Options) -> bool:
        """Whether this client has shared memory by the time that it has sent that."""
        conversation = self._conversation
        if not conversation.may_attach or not may_go_direct(verb, options):
            return False
        asked = verb == wire.Kind.REQUEST or options.route is Route.DIRECT
        return conversation.direct is not None or conversation.eager or asked

    def wait(self, ticket: Submitted, timeout: float | None) -> Steps[None]:
        """Until a ticket is settled."""
        until = deadline(timeout)
        while not ticket.settled:
            if _is_over(until):
                raise _too_late(ticket, ticket.waits_for)
            yield ticket, until

    def publish(self, topic: str, body: object, timeout: float | None, given: SendOptions) -> Steps[Receipt]:
        """One event to whoever subscribes."""
        return (yield from self._submit(wire.Publish, topic, body, timeout, given))

    def reply(
        self, received: Received | str | int, body: object, timeout: float | None, given: PostOptions
    ) -> Steps[Receipt]:
        """The answer to a message, which acks it."""
        if isinstance(received, (str, int)):
            id = yield from self.id(received)
            return (yield from self._submit(wire.Reply, id, body, timeout, given))
        return (yield from self._submit(wire.Reply, received.wire.id, body, timeout, given, received))

    def _submit(
        self,
        kind: type[Any],
        to: str | int,
        body: object,
        timeout: float | None,
        given: Any,
        answered: Received | None = None,
    ) -> Steps[Receipt]:
        conversation = self._conversation
        until = deadline(timeout)
        options = make_options(given)
        wait = told_later(options)
        content, data = encode_body(body)
        if kind is not wire.Reply and type(to) is not str:
            raise BadRequest(f"{to!r} is no name")
        pause = _FIRST_PAUSE_S
        while True:
            if conversation.closed is not None or not conversation.ready:
                yield from self._connection(until)
            if len(data) > CHUNK_BYTES or len(data) > conversation.max_body_bytes:
                yield from self._fits(data, until)
            call = Submitted(conversation.next_cid(), waits_for=wait)
            settling = answered is not None and conversation.mail.settled(answered, seen=False)
            try:
                conversation.out.say(kind(call.cid, to, content, data, options))
                conversation.open(call)
                while not call.settled:
                    if _is_over(until):
                        raise _too_late(call, wait)
                    yield call, until
            finally:
                conversation.forget(call)
            error = call.error
            if error is None:
                return ended(call)
            if answered is not None and settling:
                conversation.mail.unsettled(answered)
            if not isinstance(error, (Backpressure, RateLimited)):
                raise error
            pause = error.retry_after or min(2 * pause, 1.0)
            if until is not None and monotonic() + pause >= until:
                raise error
            yield Call(0), deadline(pause)

    def request(self, to: str, body: object, timeout: float, given: SendOptions) -> Steps[wire.Message]:
        """A message that wants a reply, and the reply."""
        conversation = self._conversation
        until = monotonic() + timeout
        content, data = encode_body(body)
        options = make_options(given)
        if type(to) is not str or not 0 < timeout <= 366 * 86400:
            raise BadRequest(f"Can't ask {to!r} with a timeout of {timeout} s")
        if options is not None and may_go_direct("request", options):
            from agentd_client import _ringing

            return (yield from _ringing.request(conversation.go_direct(), to, body, timeout, options))
        if conversation.closed is not None or not conversation.ready:
            yield from self._connection(until)
        if len(data) > CHUNK_BYTES or len(data) > conversation.max_body_bytes:
            yield from self._fits(data, until)
        call = Call(conversation.next_cid())
        conversation.out.say(wire.Request(call.cid, to, content, data, timeout, options))
        conversation.open(call)
        try:
            while not call.settled:
                if _is_over(until + _NET_S):
                    raise Timeout(f"{to} has not replied in {timeout:g} s, and agentd has not said so either")
                yield call, until + _NET_S
        except GeneratorExit:
            if call.answer is not None:  # it came, and nobody is there to have it: let it be mail
                conversation.give_back([call.answer.message.id])
            raise
        finally:
            conversation.forget(call)
        if call.lost and call.error is not None:
            raise Unreachable(
                f"The connection was lost before {to} replied; whether the request was worked on is unknown",
                "Ask again if doing it twice does no harm.",
            ) from call.error
        if call.error is not None:
            raise call.error
        message: wire.Message = call.answer.message
        conversation.ack_answer(message.id)
        return message

    # Mail and events.

    def receive(self, timeout: float | None) -> Steps[Any]:
        """One message. The caller hands it over."""
        conversation = self._conversation
        mail = conversation.mail
        until = deadline(timeout)
        conversation.check_taking()
        mail.receiving += 1
        conversation.say_grant()
        held = 1  # our place, until it is taken, withdrawn or left
        served = False
        try:
            while (message := mail.next()) is None and not _is_over(until):
                yield from mail.wait(until)
                conversation.check_taking()
            if message is None and conversation.out.connected:
                held = 0
                yield from self._withdraw()
                conversation.check_taking()
                message = mail.next()
            if message is not None:
                mail.receiving -= held
                served = True
                mail.served()
            return message
        finally:
            if not served:
                mail.receiving -= held
                mail.shrunk()

    def _withdraw(self) -> Steps[None]:
        """Take one place's credit back; a message that was on its way comes before the answer, and is ours."""
        mail = self._conversation.mail
        mail.receiving -= 1
        mail.late += 1
        mail.granted = max(0, mail.granted - 1)
        try:
            yield from self.call(wire.Receive, -1)
        except (Timeout, Unreachable):
            pass
        finally:
            mail.late -= 1

    def subscribe(self, feed: Feed) -> Steps[None]:
        """Until the daemon has the subscription."""
        until = deadline(self.answer_s)
        yield from self._connection(until)
        call = self._conversation.feeds.subscribe(feed)
        try:
            while not call.settled:
                if _is_over(until):
                    raise Timeout("agentd has not answered in time; there is no subscription")
                yield call, until
            if call.error is not None:
                raise call.error
        except BaseException:
            feed.close()
            raise

    # Coming and going.

    def join(self) -> Steps[None]:
        """Until this connection's Join is answered."""
        until = deadline(self.answer_s)
        call = self._conversation.joining
        while not call.settled:
            if _is_over(until):
                raise Unreachable(f"agentd has not answered in {self.answer_s:g} s", "Its log may say why.")
            yield call, until
        if call.error is not None:
            raise call.error

    def notice(self, name: str) -> Steps[wire.NoticeView]:
        """Announcements; they count as such once we left in an orderly way."""
        view: wire.NoticeView = yield from self.call(wire.Notice, name)
        self._announced = bool(view.fresh)
        return view

    def leave(self, timeout: float | None) -> Steps[None]:
        """Until the posts are answered and the daemon has seen us go; after `timeout` we are gone all the same."""
        until = deadline(timeout)
        conversation = self._conversation
        if conversation.closed is not None:
            return
        yield from conversation.posts.wait_idle(until)
        if conversation.direct is not None:
            conversation.direct.close()  # before agentd tells the other ends: they are to see that nobody reads there
        waited_for = conversation.taking or (self._announced and timeout != 0)
        if not waited_for and not conversation.out.unsaid and not conversation.posts.unanswered:
            return  # all it said was answered and it holds nothing: its socket's end says as much
        if conversation.out.connected:
            try:
                yield from self._answer(Call(conversation.next_cid()), wire.Leave, (), until)
            except AgentdError:
                pass


def _too_late(call: Submitted, wait: State) -> Timeout:
    if call.answer is None:
        error = Timeout(
            "agentd has not answered in time; whether it has the message is unknown",
            "With key= it could be sent again and would be accepted once, unless the daemon was killed.",
        )
    else:
        id = call.known().id
        error = Timeout(f"Message {id} was not {wait} in time. It stays accepted", f"`agentctl trace {id}` follows it.")
    error.receipt = call.known()
    return error
