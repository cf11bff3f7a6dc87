"""Conformance: what shells ask for. Notices announce each message once; completions offer words that exist."""

from __future__ import annotations

from daemons import wait_until
from parties import Party
from worlds import World

from agentd.wire.messages import (
    Completion,
    CompletionView,
    Dead,
    Delivered,
    Find,
    Leave,
    Message,
    Nack,
    Notice,
    NoticeView,
    Priority,
    Receive,
    Reject,
    Requeue,
    Status,
    Subscribe,
    Word,
)
from agentd.wire.names import id_text


def notice(party: Party, name: str = "builder") -> NoticeView:
    view = party.ask(Notice(0, name))
    assert isinstance(view, NoticeView)
    return view


def words(party: Party, kind: Word, prefix: str = "", name: str | None = None) -> dict[str, str]:
    view = party.ask(Completion(0, kind, prefix, name))
    assert isinstance(view, CompletionView)
    return {one.word: one.about for one in view.words}


def absent(world: World, planner: Party, *bodies: str) -> list[int]:
    """Messages that wait for builder."""
    return [planner.send("builder", body, allow_absent=True) for body in bodies]


def test_each_message_is_announced_once(world: World) -> None:
    planner, hook = world.join("planner"), world.connect()
    absent(world, planner, "one", "two")
    world.join("tester").send("builder", "three", allow_absent=True)
    first = notice(hook)
    assert (first.name, first.fresh, first.waiting) == ("builder", 3, 3)
    assert [(row.sender, row.count, row.lane) for row in first.senders] == [
        ("planner", 2, Priority.NORMAL),
        ("tester", 1, Priority.NORMAL),
    ]
    again = notice(world.connect())
    assert (again.fresh, again.waiting, again.senders) == (0, 3, [])
    absent(world, planner, "four")
    assert (notice(hook).fresh, notice(hook).fresh) == (1, 0)


def test_a_notice_takes_nothing_and_what_was_taken_is_no_news(world: World) -> None:
    planner, hook = world.join("planner"), world.connect()
    absent(world, planner, "one", "two")
    builder = world.join("builder", take=True)
    taken = builder.take()
    assert notice(hook).fresh == 1
    builder.ask(Nack(0, taken.id))
    assert (notice(hook).fresh, notice(hook).waiting) == (0, 2)


def test_what_never_reached_its_taker_is_announced_when_it_is_back(world: World) -> None:
    planner, hook = world.join("planner"), world.connect()
    builder = world.join("builder", take=True, credit=1)
    planner.send("builder", "one")
    builder.expect(Message)  # it never says `delivered`
    absent(world, planner, "two")
    assert notice(hook).fresh == 1
    assert notice(hook).fresh == 0
    builder.die()
    wait_until(lambda: hook.ask(Status(0)).waiting == 2)
    assert (notice(hook).fresh, notice(hook).fresh) == (1, 0)


def test_what_was_announced_is_not_announced_again_because_its_taker_died(world: World) -> None:
    planner, hook = world.join("planner"), world.connect()
    (id,) = absent(world, planner, "one")
    assert notice(hook).fresh == 1
    builder = world.join("builder", take=True, credit=1)
    builder.expect(Message)
    notice(hook)
    builder.tell(Delivered([id]))
    builder.ask(Leave(0))
    wait_until(lambda: hook.ask(Status(0)).waiting == 1)
    assert notice(hook).fresh == 0


def test_a_requeued_letter_is_new(world: World) -> None:
    planner, hook = world.join("planner"), world.connect()
    (id,) = absent(world, planner, "one")
    notice(hook)
    builder = world.join("builder", take=True)
    builder.take()
    builder.ask(Reject(0, id))
    builder.ask(Receive(0, 0))
    builder.ask(Leave(0))
    assert notice(hook).fresh == 0
    planner.ask(Requeue(0, [id]))
    assert (notice(hook).fresh, notice(hook).fresh) == (1, 0)


def test_what_nobody_was_shown_is_announced_again(world: World) -> None:
    planner, first, second = world.join("planner"), world.connect(), world.connect()
    absent(world, planner, "one")
    assert (notice(first).fresh, notice(second).fresh) == (1, 0)
    first.die()
    wait_until(lambda: notice(second).fresh)
    second.ask(Leave(0))
    assert notice(world.connect()).fresh == 0


def test_asking_again_says_that_it_was_shown(world: World) -> None:
    planner, hook = world.join("planner"), world.connect()
    absent(world, planner, "one")
    assert (notice(hook).fresh, notice(hook).fresh) == (1, 0)
    hook.die()
    absent(world, planner, "two")
    assert notice(world.connect()).fresh == 1


def test_a_notice_names_few_senders_and_counts_all(world: World) -> None:
    for number in range(12):
        world.join(f"sender-{number}").send("builder", "hi", allow_absent=True)
    view = notice(world.connect())
    assert (view.fresh, len(view.senders)) == (12, 8)
    assert view.senders[0].sender == "sender-0"  # who waits longest


def test_nobody_of_that_name(world: World) -> None:
    assert world.connect().refusal(Notice(0, "nobody")).code == "no_such_agent"


def test_completion_of_agents(world: World) -> None:
    world.join("builder", take=True)
    planner = world.join("planner")
    planner.send("build-log", "hi", allow_absent=True)
    hook = world.connect()
    assert words(hook, Word.AGENT, "buil") == {"builder": "live", "build-log": "gone, 1 waiting"}
    assert next(iter(words(hook, Word.AGENT))) == "builder"
    assert "anonymous" not in "".join(words(world.join(), Word.AGENT))


def test_completion_of_topics(world: World) -> None:
    planner, hook = world.join("planner"), world.connect()
    watcher = world.join("watcher")
    watcher.ask(Subscribe(0, "task:*"))
    watcher.ask(Subscribe(0, "build:done"))
    planner.publish("task:created", "x")
    topics = {topic: about for topic, about in words(hook, Word.TOPIC).items() if topic[:5] in ("task:", "build")}
    assert topics == {"task:created": "from planner", "build:done": "1 subscribed"}
    assert words(hook, Word.PATTERN, "task") == {"task:*": "1 subscribed", "task:created": "from planner"}


def test_completion_of_messages(world: World) -> None:
    planner, hook = world.join("planner"), world.connect()
    first, second = absent(world, planner, "compile\nit", "test it")
    mail = words(hook, Word.MAIL, name="builder")
    assert list(mail.values()) == ["planner: compile it", "planner: test it"]
    for word, id in zip(mail, (first, second), strict=True):
        assert len(word) == 4 and hook.ask(Find(0, word)).id == id
    whole = id_text(first)
    assert list(words(hook, Word.MAIL, whole[:6], "builder")) == [whole[:6]]
    assert words(hook, Word.MAIL, name="planner") == words(hook, Word.MAIL) == {}
    assert set(words(hook, Word.MESSAGE, name="planner")) >= set(mail)
    builder = world.join("builder", take=True)
    builder.take()
    builder.ask(Reject(0, first, "too hard"))
    assert words(hook, Word.DEAD) == {whole[:4]: "to builder: too hard"}
    assert hook.ask(Dead(0)).total == 1


def test_no_more_than_a_hundred_words(world: World) -> None:
    planner = world.join("planner")
    absent(world, planner, *(str(number) for number in range(150)))
    assert len(words(world.connect(), Word.MAIL, name="builder")) == 100
