"""The client's core against a daemon that is a list: no socket, no loop, no clock."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest

from agentd.wire import errors
from agentd.wire import messages as wire
from agentd.wire.bodies import Content
from agentd.wire.frames import MAGIC, FrameReader, FrameWriter
from agentd.wire.messages import State
from agentd.wire.names import id_text
from agentd_client._conversation import Conversation
from agentd_client._feeds import Feed
from agentd_client._mail import Window
from agentd_client._posts import MAX_UNANSWERED, MAX_UNANSWERED_BYTES
from agentd_client._verbs import Verbs
from agentd_client.message import Received
from agentd_client.receipt import Posted, Receipt, Steps

T = TypeVar("T")
S = TypeVar("S")


class Fake:
    """A daemon that says what the test tells it to, and a client whose output it reads."""

    def __init__(self, *, take: bool = True, replace: bool = False) -> None:
        self.wakes = 0
        self.lazy = 0
        self.client: Conversation[Received, Posted] = Conversation(
            wire.Join(0, "me", take, False, replace), None, Received, Posted, self._wake, self._lazily, lambda: None
        )
        self.verbs = Verbs(self.client, 5.0)
        self._reader: FrameReader[Any] = FrameReader(wire.ClientMessage, 1 << 24)
        self._fresh = True

    def _wake(self) -> None:
        self.wakes += 1

    def _lazily(self) -> None:
        self.lazy += 1

    def connect(self, boot: str = "1") -> None:
        self.client.connected()
        self._fresh = True
        self._reader = FrameReader(wire.ClientMessage, 1 << 24)
        said = self.heard()
        assert isinstance(said[0], wire.Hello)
        joins = [verb for verb in said if isinstance(verb, wire.Join)]
        self.renewed = [verb for verb in said if isinstance(verb, wire.Subscribe)]
        self.join = joins[0]
        self.say(wire.Welcome(wire.VERSION, "test", [], boot, 1 << 20), wire.Joined(self.join.cid, "me"))

    def heard(self) -> list[Any]:
        """What the client wrote."""
        data = b""
        while piece := self.client.take():
            data += piece
        if data and self._fresh:
            assert data[0] == MAGIC
            data, self._fresh = data[1:], False
        return self._reader.feed(data)

    def heard_one(self, kind: type[S]) -> S:
        """The one verb of that kind that the client wrote just now."""
        found = [verb for verb in self.heard() if isinstance(verb, kind)]
        assert len(found) == 1, found
        return found[0]

    def say(self, *answers: Any) -> None:
        writer = FrameWriter()
        for answer in answers:
            writer.push(answer)
        self.client.feed(writer.take())

    def mail(self, *ids: int, **details: Any) -> None:
        about = wire.Details(**details) if details else None
        for id in ids:
            self.say(wire.Message(id, "you", "uid 0", Content.TEXT, b"hi", 1.0, details=about))

    def take(self, window: Window | None = None) -> Received:
        return self.client.hand_over(self.client.mail.buffer.popleft(), window)

    @property
    def quiet(self) -> bool:
        """Nothing is open, nothing is kept."""
        client = self.client
        return not client._open and not client.mail.waiters and not client.mail.buffer


class Running:
    """A verb in steps, driven by hand."""

    def __init__(self, steps: Steps[T]) -> None:
        self.steps = steps
        self.result: Any = None
        self.done = False
        self.until: float | None = None
        self._step()

    def _step(self) -> None:
        try:
            self.call, self.until = next(self.steps)
        except StopIteration as end:
            self.result, self.done = end.value, True

    def go_on(self) -> None:
        while not self.done and self.call.settled:
            self._step()

    def time_is_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.until is not None
        late = self.until + 0.001
        monkeypatch.setattr("agentd_client._verbs.monotonic", lambda: late)
        self._step()


@pytest.fixture
def fake() -> Fake:
    one = Fake()
    one.connect()
    one.heard()
    return one


# Coming.


def test_hello_join_and_the_first_verb_are_one_frame() -> None:
    fake = Fake(take=False)
    fake.client.connected()
    fake.client.post("you", b"x")
    data = fake.client.take()
    assert data[0] == MAGIC
    assert int.from_bytes(data[1:5], "little") == len(data) - 5
    verbs = fake._reader.feed(data[1:])
    assert [type(verb) for verb in verbs] == [wire.Hello, wire.Join, wire.Send]
    assert verbs[1] == wire.Join(1, "me", False)


def test_a_refused_join_refuses_what_was_said_behind_it() -> None:
    fake = Fake()
    fake.client.connected()
    ticket = fake.client.post("you", b"x")
    fake.say(wire.Error(1, "name_in_use", "taken"))
    with pytest.raises(errors.NameInUse):
        ticket.outcome()
    with pytest.raises(errors.NameInUse):
        fake.client.post("you", b"x")


def test_another_version_is_a_sentence() -> None:
    fake = Fake()
    fake.client.connected()
    fake.say(wire.Welcome(2, "agentd 9", [], "b", 1))
    with pytest.raises(errors.VersionMismatch, match="agentd 9 speaks version 2"):
        fake.client.post("you", b"x")


# Posts.


def test_one_accepted_answers_many_posts_with_their_own_ids(fake: Fake) -> None:
    tickets = [fake.client.post("you", b"x") for _ in range(5)]
    assert fake.wakes == 2  # the connection's, and one for all five
    sends = fake.heard()
    assert [verb.cid for verb in sends] == list(range(sends[0].cid, sends[0].cid + 5))
    fake.say(wire.Accepted(sends[0].cid, 1000, 5, 1.0))
    assert [ticket.outcome().id for ticket in tickets] == [id_text(1000 + n) for n in range(5)]
    assert fake.client.posts.unanswered == fake.client.posts.unanswered_bytes == 0
    assert fake.quiet


def test_a_post_that_waits_settles_when_that_state_is_reached(fake: Fake) -> None:
    ticket = fake.client.post("you", b"x", wait="acked")
    cid = fake.heard_one(wire.Send).cid
    fake.say(wire.Accepted(cid, 7, 1, 1.0))
    assert not ticket.done()
    fake.say(wire.Receipt(cid, 7, State.ACKED, 2.0))
    assert ticket.outcome().state == "acked"
    assert fake.client.posts.unanswered == 0


def test_posts_are_bounded_in_number_and_bytes(fake: Fake) -> None:
    for _ in range(MAX_UNANSWERED):
        fake.client.post("you", b"")
    with pytest.raises(errors.Backpressure) as refused:
        fake.client.post("you", b"")
    assert refused.value.retry_after

    other = Fake()
    other.connect()
    other.client.max_body_bytes = MAX_UNANSWERED_BYTES
    other.client.post("you", bytes(MAX_UNANSWERED_BYTES))
    with pytest.raises(errors.Backpressure):
        other.client.post("you", b"x")


def test_too_large_is_known_here(fake: Fake) -> None:
    with pytest.raises(errors.TooLarge):
        fake.client.post("you", bytes((1 << 20) + 1))
    assert fake.heard() == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"ttl": -1}, "ttl"),
        ({"priority": "soon"}, "priority"),
        ({"key": "k" * 256}, "key"),
        ({"headers": {"a": 1}}, "headers"),
        ({"wait": "dead"}, "wait"),
        ({"hops": "x"}, "hops"),
    ],
)
def test_an_option_out_of_range_is_named_and_sent_nowhere(fake: Fake, options: Any, named: str) -> None:
    with pytest.raises(errors.BadRequest, match=named):
        fake.client.post("you", b"x", **options)
    assert fake.heard() == []
    assert fake.quiet


def test_a_name_that_is_no_text_harms_nobody(fake: Fake) -> None:
    for name in (7, "\udcff"):
        with pytest.raises(errors.BadName):
            fake.client.post(name, b"x")  # type: ignore[arg-type]
    fake.client.post("you", b"x")
    fake.heard_one(wire.Send)


def test_failures_that_nobody_read_are_told_once(fake: Fake) -> None:
    read, unread = fake.client.post("a", b"x"), fake.client.post("b", b"x")
    for verb in fake.heard():
        fake.say(wire.Error(verb.cid, "no_such_agent", f"No agent {verb.to}"))
    with pytest.raises(errors.NoSuchAgent):
        read.outcome()
    failed = fake.client.posts.unread()
    assert failed is not None
    assert "to b: No agent b" in failed.message
    assert "to a" not in failed.message
    assert unread.error is not None
    assert fake.client.posts.unread() is None


def test_a_lost_connection_makes_open_tickets_unknown(fake: Fake) -> None:
    ticket = fake.client.post("you", b"x")
    waiting = fake.client.post("you", b"x", wait="acked")
    cids = [verb.cid for verb in fake.heard()]
    fake.say(wire.Accepted(cids[1], 7, 1, 1.0))
    fake.client.lost()
    assert ticket.outcome() == Receipt(None, State.UNKNOWN, note="the connection was lost before the answer")
    assert (waiting.outcome().state, waiting.outcome().id) == ("unknown", id_text(7))
    assert fake.quiet
    fake.connect()
    assert fake.heard() == []  # nothing is sent again


@pytest.mark.parametrize("has_reader", [False, True])
def test_who_reads_a_ring_is_invited_before_mail_goes_to_its_socket(fake: Fake, has_reader: bool) -> None:
    fake.connect()
    assert not fake.join.direct
    fake.client.direct = cast(Any, SimpleNamespace(has_reader=has_reader, renew=lambda: None))
    fake.client.lost()
    fake.connect("2")
    assert fake.join.direct is has_reader


def test_what_is_posted_without_a_connection_goes_with_the_next(fake: Fake) -> None:
    fake.client.lost()
    ticket = fake.client.post("you", b"x")
    assert fake.client.take() == b""
    fake.client.connected()
    fake._fresh, fake._reader = True, FrameReader(wire.ClientMessage, 1 << 24)
    assert [type(verb) for verb in fake.heard()] == [wire.Hello, wire.Join, wire.Send]
    fake.client.lost()
    assert ticket.outcome().state == "unknown"


# Send.


def test_send_tries_again_for_want_of_room(fake: Fake) -> None:
    send = Running(fake.verbs.send("you", b"x", None, {}))
    first = fake.heard_one(wire.Send)
    fake.say(wire.Error(first.cid, "backpressure", "full", retryable=True, retry_after=0.5))
    send.go_on()
    assert send.until is not None  # the pause
    send._step()
    second = fake.heard_one(wire.Send)
    assert second.cid > first.cid
    fake.say(wire.Accepted(second.cid, 9, 1, 1.0))
    send.go_on()
    assert send.result.id == id_text(9)
    assert fake.quiet


def test_send_without_time_for_another_try_raises_the_refusal(fake: Fake) -> None:
    send = Running(fake.verbs.send("you", b"x", 0.2, {}))
    fake.say(wire.Error(fake.heard_one(wire.Send).cid, "backpressure", "full", retry_after=0.5))
    with pytest.raises(errors.Backpressure):
        send.go_on()


def test_send_answers_the_state_reached(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    send = Running(fake.verbs.send("you", b"x", 1.0, {"wait": "acked"}))
    cid = fake.heard_one(wire.Send).cid
    fake.say(wire.Accepted(cid, 9, 1, 1.0))
    fake.say(wire.Receipt(cid, 9, State.DELIVERED, 2.0))
    send.go_on()
    assert not send.done
    with pytest.raises(errors.Timeout) as late:
        send.time_is_over(monkeypatch)
    assert late.value.receipt.state == "delivered"
    assert late.value.receipt.id == id_text(9)
    assert id_text(9) in late.value.hint
    assert fake.quiet
    fake.say(wire.Receipt(cid, 9, State.ACKED, 3.0))  # too late to matter


def test_a_message_that_ends_badly_is_undelivered(fake: Fake) -> None:
    send = Running(fake.verbs.send("you", b"x", None, {"wait": "delivered"}))
    cid = fake.heard_one(wire.Send).cid
    fake.say(wire.Accepted(cid, 9, 1, 1.0), wire.Receipt(cid, 9, State.EXPIRED, 2.0, note="nobody took it"))
    with pytest.raises(errors.Undelivered, match="expired: nobody took it") as ended:
        send.go_on()
    assert ended.value.receipt.state == "expired"


def test_send_without_a_connection_waits_for_one(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.client.lost("gone")
    send = Running(fake.verbs.send("you", b"x", 1.0, {}))
    late = Running(fake.verbs.send("you", b"x", 0.5, {}))
    fake.connect()
    send.go_on()
    fake.heard_one(wire.Send)
    fake.client.lost()
    send.go_on()
    assert send.result.state == "unknown"
    late.steps.close()
    again = Running(fake.verbs.send("you", b"x", 0.5, {}))
    with pytest.raises(errors.Unreachable):
        again.time_is_over(monkeypatch)


def test_after_goodbye_nothing_is_said_to_that_daemon(fake: Fake) -> None:
    fake.say(wire.Bye("agentd is stopping"))
    send = Running(fake.verbs.send("you", b"x", 1.0, {}))
    assert fake.heard() == []
    fake.client.lost()
    fake.connect()
    send.go_on()
    fake.heard_one(wire.Send)


def test_publish_says_whom_it_reached(fake: Fake) -> None:
    publish = Running(fake.verbs.publish("a:b", b"x", None, {}))
    cid = fake.heard_one(wire.Publish).cid
    fake.say(wire.Receipt(cid, 9, State.ACCEPTED, 1.0, reached=2, refused=["slow"]))
    publish.go_on()
    assert (publish.result.reached, publish.result.refused) == (2, ["slow"])


# Request.


def test_a_reply_is_acked_with_the_next_write(fake: Fake) -> None:
    request = Running(fake.verbs.request("you", "?", 5.0, {}))
    cid = fake.heard_one(wire.Request).cid
    wakes = fake.wakes
    fake.say(wire.Answer(cid, wire.Message(5, "you", "uid 0", Content.TEXT, b"!", 1.0)))
    request.go_on()
    assert request.result.body == b"!"
    assert (fake.wakes, fake.lazy) == (wakes, 1)
    fake.client.post("you", b"x")
    assert [type(verb) for verb in fake.heard()] == [wire.Send, wire.Ack]


def test_an_answer_that_nobody_waits_for_becomes_mail(fake: Fake) -> None:
    request = Running(fake.verbs.request("you", "?", 5.0, {}))
    cid = fake.heard_one(wire.Request).cid
    request.steps.close()
    assert fake.quiet
    fake.say(wire.Answer(cid, wire.Message(5, "you", "uid 0", Content.TEXT, b"!", 1.0)))
    assert fake.heard_one(wire.GiveBack).ids == [5]


@pytest.mark.parametrize(
    ("code", "kind"),
    [("no_responder", errors.NoResponder), ("timeout", errors.Timeout), ("rejected", errors.Rejected)],
)
def test_a_request_that_fails_says_how(fake: Fake, code: str, kind: type[Exception]) -> None:
    request = Running(fake.verbs.request("you", "?", 5.0, {}))
    fake.say(wire.Error(fake.heard_one(wire.Request).cid, code, "no"))
    with pytest.raises(kind):
        request.go_on()


def test_a_request_on_a_lost_connection_is_unknown(fake: Fake) -> None:
    request = Running(fake.verbs.request("you", "?", 5.0, {}))
    fake.client.lost()
    with pytest.raises(errors.Unreachable, match="unknown"):
        request.go_on()


# Mail.


def test_receive_asks_for_one_and_says_delivered_when_it_is_handed_over(fake: Fake) -> None:
    receive = Running(fake.verbs.receive(None))
    assert fake.heard() == [wire.Receive(0, 1)]
    fake.mail(5)
    assert fake.heard() == []
    receive.go_on()
    received = fake.client.hand_over(receive.result, None)
    assert fake.heard() == [wire.Delivered([5])]
    fake.client.ack(received)
    fake.client.ack(received)
    assert fake.heard() == [wire.Ack(0, [5])]
    assert fake.quiet


def test_an_ack_in_the_same_write_makes_delivered_unnecessary(fake: Fake) -> None:
    receive = Running(fake.verbs.receive(None))
    fake.heard()
    fake.mail(5)
    receive.go_on()
    fake.client.ack(fake.client.hand_over(receive.result, None))
    assert fake.heard() == [wire.Ack(0, [5])]


def test_a_receive_that_is_too_late_withdraws_its_credit(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    receive = Running(fake.verbs.receive(1.0))
    fake.heard()
    receive.time_is_over(monkeypatch)
    withdrawal = fake.heard_one(wire.Receive)
    assert (withdrawal.credit, withdrawal.cid > 0) == (-1, True)
    fake.say(wire.Done(withdrawal.cid))
    receive.go_on()
    assert receive.done
    assert receive.result is None
    assert fake.heard() == []
    assert fake.quiet


def test_a_message_on_its_way_to_a_late_receive_is_not_lost(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    receive = Running(fake.verbs.receive(1.0))
    fake.heard()
    receive.time_is_over(monkeypatch)
    cid = fake.heard_one(wire.Receive).cid
    fake.mail(5)
    fake.say(wire.Done(cid))
    receive.go_on()
    assert receive.result.id == 5
    assert fake.heard() == []


def test_a_receive_of_no_time_asks_before_it_withdraws(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    Running(fake.verbs.receive(0.0))
    assert [(verb.credit, bool(verb.cid)) for verb in fake.heard()] == [(1, False), (-1, True)]


@pytest.mark.parametrize("arrives", ["before", "after", "never"])
def test_a_cancelled_receive_gives_back(fake: Fake, arrives: str) -> None:
    receive = Running(fake.verbs.receive(None))
    fake.heard()
    if arrives == "before":
        fake.mail(5)
    receive.steps.close()
    said = fake.heard()
    if arrives == "before":
        assert said == [wire.GiveBack(0, [5])]
    else:
        assert said == [wire.Receive(0, -1)]
    if arrives == "after":
        fake.mail(5)
        assert fake.heard() == [wire.GiveBack(0, [5])]
    assert fake.quiet


def test_a_message_taken_from_a_cancelled_receive_wakes_the_next(fake: Fake) -> None:
    first, second = Running(fake.verbs.receive(None)), Running(fake.verbs.receive(None))
    fake.heard()
    fake.mail(5)
    first.steps.close()  # it was woken, and is cancelled before it could look
    second.go_on()
    assert second.result.id == 5
    assert fake.heard() == [wire.Receive(0, -1)]


def test_only_who_takes_the_mail_may_receive() -> None:
    fake = Fake(take=False)
    fake.connect()
    with pytest.raises(errors.NotPermitted):
        Running(fake.verbs.receive(None))
    with pytest.raises(errors.NotPermitted):
        Window(fake.client, 1).open()


def test_a_large_window_is_renewed_by_a_quarter_a_small_one_at_once() -> None:
    said: dict[int, list[int]] = {}
    for size in (64, 2):
        fake = Fake()
        fake.connect()
        window = Window(fake.client, size)
        window.open()
        assert fake.heard() == [wire.Receive(0, size)]
        said[size] = []
        for id in range(1, 65):
            fake.mail(id)
            fake.client.ack(fake.take(window))
            said[size] += [verb.credit for verb in fake.heard() if isinstance(verb, wire.Receive)]
    assert said[64] == [17, 17, 17]
    assert said[2] == [1] * 64


def test_a_window_grants_its_size_and_one_for_each_that_is_settled(fake: Fake) -> None:
    window = Window(fake.client, 3)
    window.open()
    assert fake.heard() == [wire.Receive(0, 3)]
    fake.mail(1, 2, 3)
    one, two, three = (fake.take(window) for _ in range(3))
    assert fake.heard() == [wire.Delivered([1, 2, 3])]
    fake.client.ack(one)
    fake.client.mail.settle(two, wire.Nack(0, 2, "later"))
    assert fake.heard() == [wire.Ack(0, [1]), wire.Nack(0, 2, "later"), wire.Receive(0, 2)]
    fake.client.mail.settle(three, wire.GiveBack(0, [3]))
    assert fake.heard() == [wire.GiveBack(0, [3]), wire.Receive(0, 1)]


def test_delivered_is_said_before_what_the_application_made_of_it(fake: Fake) -> None:
    window = Window(fake.client, 1)
    window.open()
    fake.heard()
    fake.mail(1)
    fake.client.mail.settle(fake.take(window), wire.Nack(0, 1, "no"))
    assert [type(verb) for verb in fake.heard()] == [wire.Delivered, wire.Nack, wire.Receive]


def test_an_ack_comes_before_what_is_asked_after_it(fake: Fake) -> None:
    window = Window(fake.client, 1)
    window.open()
    fake.heard()
    fake.mail(1)
    fake.client.ack(fake.take(window))
    Running(fake.verbs.call(wire.Status))
    assert [type(verb) for verb in fake.heard()] == [wire.Ack, wire.Status, wire.Receive]


def test_a_reply_and_its_credit_are_one_frame(fake: Fake) -> None:
    window = Window(fake.client, 1)
    window.open()
    fake.heard()
    fake.mail(1, reply_by=9.0)
    received = fake.take(window)
    assert received.wants_reply
    reply = Running(fake.verbs.reply(received, "yes", None, {}))
    said = fake.heard()
    assert [type(verb) for verb in said] == [wire.Reply, wire.Receive]
    fake.say(wire.Accepted(said[0].cid, 2, 1, 1.0))
    reply.go_on()
    assert reply.result.state == "accepted"
    fake.client.ack(received)
    assert fake.heard() == []


def test_a_refused_reply_leaves_the_message_ours(fake: Fake) -> None:
    window = Window(fake.client, 1)
    window.open()
    fake.heard()
    fake.mail(1)
    received = fake.take(window)
    reply = Running(fake.verbs.reply(received, "yes", None, {}))
    cid = fake.heard_one(wire.Reply).cid
    fake.say(wire.Error(cid, "too_large", "no"))
    with pytest.raises(errors.TooLarge):
        reply.go_on()
    assert not received.settled
    assert fake.heard() == [wire.Receive(0, -1)]
    fake.client.ack(received)
    assert fake.heard() == [wire.Ack(0, [1]), wire.Receive(0, 1)]


def test_a_closed_window_gives_back_what_nobody_saw(fake: Fake) -> None:
    window = Window(fake.client, 4)
    window.open()
    fake.heard()
    fake.mail(1, 2, 3)
    seen = fake.take(window)
    window.close()
    assert fake.heard() == [wire.Delivered([1]), wire.GiveBack(0, [2, 3]), wire.Receive(0, -1)]
    fake.mail(4)  # was on its way
    assert fake.heard() == [wire.GiveBack(0, [4])]
    fake.client.ack(seen)
    assert fake.heard() == [wire.Ack(0, [1])]
    assert fake.quiet


def test_a_cancelled_wait_closes_the_window_and_the_next_opens_it(fake: Fake) -> None:
    window = Window(fake.client, 2)
    wait = Running(window.wait())
    assert fake.heard() == [wire.Receive(0, 2)]
    wait.steps.close()
    assert fake.heard() == [wire.Receive(0, -2)]
    wait = Running(window.wait())
    assert fake.heard() == [wire.Receive(0, 2)]
    fake.mail(1)
    wait.go_on()
    assert wait.done


def test_what_comes_between_looking_and_waiting_is_seen(fake: Fake) -> None:
    window = Window(fake.client, 1)
    window.open()
    feed = subscribed(fake)
    fake.mail(1)
    fake.mail(2, topic="a:b", subscription=3)
    assert Running(window.wait()).done
    assert Running(feed.wait()).done


def test_a_thousand_cancelled_waits_leave_nothing(fake: Fake) -> None:
    for number in range(1000):
        window = Window(fake.client, 1)
        Running(window.wait()).steps.close()
        Running(fake.verbs.receive(None)).steps.close()
        Running(fake.verbs.send("you", b"x", None, {})).steps.close()
        Running(fake.verbs.request("you", b"x", 5.0, {})).steps.close()
        Running(fake.verbs.call(wire.Status)).steps.close()
        fake.heard()
        assert fake.quiet, number
    assert fake.client.mail.windows == []
    assert fake.client.mail.receiving == fake.client.mail.granted == 0


def test_after_a_lost_connection_credit_is_granted_again_and_acks_are_kept(fake: Fake) -> None:
    window = Window(fake.client, 3)
    window.open()
    fake.heard()
    fake.mail(1, 2)
    received = fake.take(window)
    fake.client.ack(received)
    fake.client.lost()  # 2 was never handed over: the daemon sends it again
    assert not fake.client.mail.buffer
    fake.client.connected()
    fake._fresh, fake._reader = True, FrameReader(wire.ClientMessage, 1 << 24)
    assert [verb for verb in fake.heard() if isinstance(verb, (wire.Ack, wire.Receive))] == [
        wire.Ack(0, [1]),
        wire.Receive(0, 3),
    ]


def test_mail_that_was_taken_over_raises_and_is_not_taken_back(fake: Fake) -> None:
    receive = Running(fake.verbs.receive(None))
    fake.heard()
    fake.say(wire.Error(0, "name_in_use", "taken over by pid 7"))
    with pytest.raises(errors.NameInUse):
        receive.go_on()
    fake.client.lost()
    fake.connect()
    assert fake.join.take is False


def test_a_join_refused_later_leaves_sending(fake: Fake) -> None:
    fake.client.lost()
    fake.client.connected()
    fake.say(wire.Error(fake.client.joining.cid, "name_in_use", "taken"))
    assert fake.client.closed is None
    assert not fake.client.ready
    fake.client.lost()
    fake.connect()
    assert fake.join.take is False
    assert fake.client.ready


# Subscriptions.


def subscribed(fake: Fake, pattern: str = "a:*", number: int = 3) -> Feed:
    feed = Feed(fake.client, pattern, "new", None)
    subscribing = Running(fake.verbs.subscribe(feed))
    fake.say(wire.Subscribed(fake.heard_one(wire.Subscribe).cid, number))
    subscribing.go_on()
    assert subscribing.done
    return feed


def test_events_go_to_their_subscription_and_are_said_delivered(fake: Fake) -> None:
    feed = subscribed(fake)
    fake.mail(5, 6, topic="a:b", subscription=3)
    fake.mail(7, topic="z", subscription=99)  # ended meanwhile
    assert [event.id for event in (feed.take(), feed.take()) if event] == [5, 6]
    assert feed.take() is None
    assert fake.heard() == [wire.Delivered([5, 6], 3)]
    feed.close()
    feed.close()
    assert fake.heard() == [wire.Unsubscribe(0, 3)]


def test_a_gap_is_told_once_at_its_place(fake: Fake) -> None:
    feed = subscribed(fake)
    fake.mail(5, topic="a:b", subscription=3)
    fake.say(wire.LaggedEvent(3, 12))
    fake.mail(6, topic="a:b", subscription=3)
    assert feed.take() is not None
    with pytest.raises(errors.Lagged) as gap:
        feed.take()
    assert gap.value.missed == 12
    event = feed.take()
    assert event is not None
    assert event.id == 6


def test_a_subscription_is_renewed_and_tells_of_the_gap_when_it_is_there_again(fake: Fake) -> None:
    feed = subscribed(fake)
    fake.mail(5, topic="a:b", subscription=3)
    fake.client.lost()
    fake.connect()
    assert [verb.pattern for verb in fake.renewed] == ["a:*"]
    old = feed.take()
    assert old is not None
    assert fake.heard() == []  # that number is of the last connection
    assert feed.take() is None
    fake.say(wire.Subscribed(fake.renewed[0].cid, 8))
    with pytest.raises(errors.Lagged) as gap:
        feed.take()
    assert gap.value.missed is None
    fake.mail(6, topic="a:b", subscription=8)
    assert feed.take() is not None
    assert fake.heard() == [wire.Delivered([6], 8)]


def test_a_subscription_outlives_a_daemon_that_is_met_while_it_stops(fake: Fake) -> None:
    feed = subscribed(fake)
    fake.client.lost()
    fake.connect()
    fake.say(wire.Error(fake.renewed[0].cid, "shutting_down", "agentd is stopping", "", True))
    assert feed.take() is None
    fake.client.lost()
    fake.connect()
    assert [verb.pattern for verb in fake.renewed] == ["a:*"]
    fake.say(wire.Subscribed(fake.renewed[0].cid, 4))
    with pytest.raises(errors.Lagged):
        feed.take()
    fake.mail(5, topic="a:b", subscription=4)
    event = feed.take()
    assert event is not None
    assert event.id == 5


def test_a_subscription_given_up_before_it_is_there_is_ended(fake: Fake) -> None:
    feed = Feed(fake.client, "a", "new", None)
    subscribing = Running(fake.verbs.subscribe(feed))
    cid = fake.heard_one(wire.Subscribe).cid
    subscribing.steps.close()
    fake.say(wire.Subscribed(cid, 4))
    assert fake.heard() == [wire.Unsubscribe(0, 4)]


def test_a_refused_subscription_raises(fake: Fake) -> None:
    subscribing = Running(fake.verbs.subscribe(Feed(fake.client, "a", "first", None)))
    fake.say(wire.Error(fake.heard_one(wire.Subscribe).cid, "lane_unavailable", "no journal"))
    with pytest.raises(errors.LaneUnavailable):
        subscribing.go_on()
    with pytest.raises(errors.BadName):
        Feed(fake.client, "a**", "new", None)


# Care, and leaving.


def test_an_id_may_be_a_prefix_and_is_looked_up_first(fake: Fake) -> None:
    trace = Running(fake.verbs.on_id(wire.Trace, "aaaa"))
    find = fake.heard_one(wire.Find)
    fake.say(wire.Found(find.cid, 5))
    trace.go_on()
    assert fake.heard_one(wire.Trace).id == 5
    Running(fake.verbs.on_id(wire.Trace, id_text(6)))
    assert fake.heard_one(wire.Trace).id == 6


def test_a_field_out_of_range_is_refused_here(fake: Fake) -> None:
    with pytest.raises(errors.BadRequest, match="limit"):
        Running(fake.verbs.call(wire.Dead, None, 0))
    with pytest.raises(errors.BadRequest, match="after_s"):
        Running(fake.verbs.on_id(wire.Nack, 5, "", -1.0))
    assert fake.heard() == []
    assert fake.quiet


def test_leaving_waits_for_answers_then_leaves(fake: Fake) -> None:
    fake.client.post("you", b"x")
    cid = fake.heard_one(wire.Send).cid
    leave = Running(fake.verbs.leave(5.0))
    assert fake.heard() == []
    fake.say(wire.Accepted(cid, 1, 1, 1.0))
    leave.go_on()
    fake.say(wire.Done(fake.heard_one(wire.Leave).cid))
    leave.go_on()
    assert leave.done
    fake.client.leave()
    with pytest.raises(errors.Unreachable, match="left"):
        fake.client.post("you", b"x")


def test_a_sender_with_nothing_unsaid_just_goes() -> None:
    fake = Fake(take=False)
    fake.connect()
    assert Running(fake.verbs.leave(5.0)).done
    assert fake.heard() == []


def test_leaving_in_time_makes_the_rest_unknown(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    ticket = fake.client.post("you", b"x")
    leave = Running(fake.verbs.leave(1.0))
    leave.time_is_over(monkeypatch)
    assert leave.done
    fake.client.leave()
    assert ticket.outcome().state == "unknown"


@pytest.mark.parametrize("kind", [wire.Bye, wire.LaggedEvent, wire.Done, wire.Receipt, wire.Accepted, wire.Error])
def test_an_answer_to_nothing_is_ignored(fake: Fake, kind: Callable[..., Any]) -> None:
    fields: dict[Any, tuple[Any, ...]] = {
        wire.Bye: ("bye",),
        wire.LaggedEvent: (77, 1),
        wire.Done: (77,),
        wire.Receipt: (77, 1, State.ACKED, 1.0),
        wire.Accepted: (77, 1, 3, 1.0),
        wire.Error: (77, "busy", "no"),
    }
    fake.say(kind(*fields[kind]))
    assert fake.quiet


def test_every_field_reaches_the_application() -> None:
    details = wire.Details("a:b", 0, {"k": "v"}, 2, 3, 4, 5.0, 6.0)
    received = Received(wire.Message(1, "you", "uid 0", Content.JSON, b'{"a":1}', 7.0, 2, details=details), None)
    assert received.value == {"a": 1}
    assert (received.re, received.thread, received.hops) == (id_text(2), id_text(3), 4)
    assert (received.topic, received.headers, received.expires_at) == ("a:b", {"k": "v"}, 6.0)
    assert (received.attempt, received.sent_at, received.wants_reply) == (2, 7.0, True)
    liar = Received(wire.Message(1, "you", "uid 0", Content.JSON, b"{", 7.0), None)
    with pytest.raises(errors.BadBody):
        _ = liar.value


@pytest.mark.parametrize("module", ["agentd_client", "agentd_client.blocking"])
def test_the_blocking_client_never_imports_asyncio(module: str) -> None:
    code = f"import sys, {module}; print({{'asyncio', 'dataclasses', 'logging', 'random'}} & sys.modules.keys())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_what_expired_on_its_way_is_not_handed_over(fake: Fake) -> None:
    """It goes back, and the daemon says that it expired; the next one is handed over instead."""
    receive = Running(fake.verbs.receive(None))
    fake.heard()
    fake.mail(7, expires_at=1.0)
    receive.go_on()
    assert not receive.done
    assert fake.heard_one(wire.GiveBack).ids == [7]
    fake.mail(8, expires_at=4e9)
    receive.go_on()
    assert receive.result.id == 8


def test_what_came_before_a_takeover_is_the_new_takers(fake: Fake) -> None:
    window = Window(fake.client, 5)
    window.open()
    fake.heard()
    fake.mail(1, 2)
    fake.say(wire.Error(0, "name_in_use", "taken over", ""))
    assert fake.client.mail.next() is None


def test_an_answer_that_nobody_is_there_to_have_becomes_mail(fake: Fake) -> None:
    request = Running(fake.verbs.request("you", b"?", 5.0, {}))
    cid = fake.heard_one(wire.Request).cid
    fake.say(wire.Answer(cid, wire.Message(9, "you", "uid 0", Content.TEXT, b"!", 1.0)))
    request.steps.close()  # cancelled before it went on
    said = fake.heard()
    assert [verb.ids for verb in said if isinstance(verb, wire.GiveBack)] == [[9]]
    assert not [verb for verb in said if isinstance(verb, wire.Ack)]
