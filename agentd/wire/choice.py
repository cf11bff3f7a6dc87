"""Which way a message takes, as one table: the first row whose conditions all hold says its route, or why it has none.

The daemon routes by it, clients decide by it whether to write into a ring or to say it to agentd, `agentctl send
--dry-run` prints the row that holds, and the tables in the documents are made of it. clients/vectors/choice.json has
the same table for other languages, and cases with their answers. A message's lane is always that of its priority:
nothing goes another way in silence.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, NamedTuple

from agentd.wire.errors import BY_CODE, AgentdError
from agentd.wire.types import Priority, Route

DIRECT_LANES: Final = (Priority.CRITICAL, Priority.HIGH)


class Recipient(StrEnum):
    """Who a message is for, as the one who chooses its way sees it."""

    UNKNOWN = "unknown"  # nobody of that name is known
    NEW = "new"  # nor here, but the sender allows that
    ABSENT = "absent"  # known, and nobody takes its mail
    SOCKET = "socket"  # live, without shared memory
    ATTACHING = "attaching"  # live, and can be asked to attach to shared memory
    RING = "ring"  # live, and reads its ring of this lane


class Size(StrEnum):
    """What carries a body of that size."""

    INLINE = "inline"  # a record of the ring
    POOL = "pool"  # the pair's pool
    LARGE = "large"  # agentd's socket alone
    TOO_LARGE = "too_large"  # nothing: it is over message.max_body_bytes


def size_of(size_bytes: int, inline_bytes: int, pool_bytes: int, max_body_bytes: int) -> Size:
    """The size of a body among the limits of its lane; a lane without rings, or without pools, has 0."""
    if size_bytes > max_body_bytes:
        return Size.TOO_LARGE
    if size_bytes <= inline_bytes:
        return Size.INLINE
    return Size.POOL if size_bytes <= pool_bytes else Size.LARGE


class Case(NamedTuple):
    """All that the choice depends on. The last three are None until somebody has looked."""

    verb: str  # send, request, reply, publish
    priority: Priority
    durable: bool
    route: Route | None  # that the sender demands
    open: bool  # the lane of that priority
    attached: bool | None = None  # the sender, to shared memory
    recipient: Recipient | None = None
    size: Size | None = None


class Row(NamedTuple):
    """One row. Words in braces are filled in; `unless` is what may change until a message is sent, and what then."""

    name: str
    when: dict[str, tuple[Any, ...]]  # fields of Case, each with the values that fit
    route: Route | None  # None: refused with `code`
    code: str
    reason: str
    hint: str = ""
    unless: str = ""


def _refused(name: str, when: dict[str, tuple[Any, ...]], code: str, reason: str, hint: str = "") -> Row:
    return Row(name, when, None, code, reason, hint)


def _goes(name: str, when: dict[str, tuple[Any, ...]], route: Route, reason: str, unless: str) -> Row:
    return Row(name, when, route, "", reason, unless=unless)


_DIRECT: Final = {"priority": DIRECT_LANES}
_NORMAL: Final = {"priority": (Priority.NORMAL,)}
_LOW: Final = {"priority": (Priority.LOW,)}
_INBOX: Final = {"priority": (Priority.NORMAL, Priority.LOW)}
_NOBODY: Final = (Recipient.UNKNOWN, Recipient.NEW)
_TO_SOCKET: Final = {**_DIRECT, "recipient": (Recipient.SOCKET,)}
_TO_RING: Final = {**_DIRECT, "recipient": (Recipient.RING,)}
_TO_ATTACHING: Final = {**_DIRECT, "recipient": (Recipient.ATTACHING,)}

_LEAVES: Final = "{to} is live now; if it leaves first, this is refused: absent"
_NO_PAIR: Final = _LEAVES + ". If no pair can be had, it is relayed, and refused where direct is demanded"
_NO_MEMORY: Final = ("{to} reads no shared memory", "send() with this priority is relayed to its socket.")

TABLE: Final = (
    _refused(
        "closed",
        {"open": (False,)},
        "lane_unavailable",
        "The lane {lane} can't carry this: {why}",
        "`agentctl lanes` shows which lanes are open; priority normal is.",
    ),
    # From ring to ring, at most once, to one live agent; or relayed.
    _refused(
        "direct_durable",
        {**_DIRECT, "durable": (True,)},
        "not_on_this_lane",
        "{lane} messages are never durable: they go to live agents only",
        "Leave out durable.",
    ),
    _refused(
        "direct_other_route",
        {**_DIRECT, "route": (Route.SOCKET, Route.JOURNAL)},
        "lane_unavailable",
        "The lane {lane} goes direct or relayed, not by {route}",
        "Ask for no route, or for another priority.",
    ),
    _refused(
        "direct_publish",
        {**_DIRECT, "verb": ("publish",)},
        "not_on_this_lane",
        "An event has many receivers, a pair has one",
        "Publish with priority normal.",
    ),
    _refused(
        "direct_reply",
        {**_DIRECT, "verb": ("reply",)},
        "not_on_this_lane",
        "A reply has no priority of its own here",
        "Reply without priority.",
    ),
    _refused(
        "request_unattached",
        {**_DIRECT, "verb": ("request",), "attached": (False,)},
        "not_on_this_lane",
        "agentd does not relay requests of this priority",
        "Ask with priority normal, or from an agent that is attached to shared memory.",
    ),
    _refused(
        "request_relayed",
        {**_DIRECT, "verb": ("request",), "route": (Route.RELAYED,)},
        "not_on_this_lane",
        "agentd does not relay requests of this priority",
        "Ask for no route, or with priority normal.",
    ),
    _refused(
        "direct_unattached",
        {**_DIRECT, "route": (Route.DIRECT,), "attached": (False,)},
        "lane_unavailable",
        "This message came through agentd's socket: it is relayed, not direct",
        "A sender that is attached to shared memory sends direct; ask for no route.",
    ),
    _refused("direct_unknown", {**_DIRECT, "recipient": _NOBODY}, "no_such_agent", "No agent {to} is known"),
    _refused(
        "direct_absent",
        {**_DIRECT, "recipient": (Recipient.ABSENT,)},
        "absent",
        "{to} is absent, and {lane} messages never wait",
        "Priority normal waits for it in its inbox.",
    ),
    _refused("request_to_socket", {**_TO_SOCKET, "verb": ("request",)}, "lane_unavailable", *_NO_MEMORY),
    _refused("direct_to_socket", {**_TO_SOCKET, "route": (Route.DIRECT,)}, "lane_unavailable", *_NO_MEMORY),
    _refused(
        "socket_too_large",
        {**_TO_SOCKET, "size": (Size.TOO_LARGE,)},
        "too_large",
        "The body has {size_bytes} bytes, more than message.max_body_bytes",
    ),
    _goes(
        "relayed_to_socket",
        _TO_SOCKET,
        Route.RELAYED,
        "{to} reads no shared memory; it gets this first on its socket",
        _LEAVES,
    ),
    _refused(
        "direct_large",
        {**_DIRECT, "size": (Size.LARGE, Size.TOO_LARGE)},
        "too_large",
        "The body has {size_bytes} bytes; with what goes beside it, {to}'s ring takes {limit_bytes}",
        "Priority normal takes larger ones.",
    ),
    _goes(
        "relayed_demanded",
        {**_TO_RING, "route": (Route.RELAYED,)},
        Route.RELAYED,
        "relayed was asked for; {to} reads its ring",
        _LEAVES,
    ),
    _goes(
        "relayed_attaching_demanded",
        {**_TO_ATTACHING, "route": (Route.RELAYED,)},
        Route.RELAYED,
        "relayed was asked for; {to} is asked to attach to shared memory first",
        _LEAVES,
    ),
    _goes(
        "relayed",
        {**_TO_RING, "attached": (False,)},
        Route.RELAYED,
        "{sender} is not attached to shared memory; {to} reads its ring",
        _LEAVES,
    ),
    _goes(
        "relayed_attaching",
        {**_TO_ATTACHING, "attached": (False,)},
        Route.RELAYED,
        "{sender} is not attached to shared memory; {to} is asked to attach first",
        _LEAVES,
    ),
    _goes(
        "direct_attaching",
        {**_TO_ATTACHING, "attached": (True,)},
        Route.DIRECT,
        "{sender} has shared memory; {to} is asked to attach first",
        _NO_PAIR,
    ),
    _goes(
        "direct",
        {**_TO_RING, "attached": (True,), "size": (Size.INLINE,)},
        Route.DIRECT,
        "{sender} and {to} share memory; the body fits into the ring",
        _NO_PAIR,
    ),
    _goes(
        "direct_pool",
        {**_TO_RING, "attached": (True,), "size": (Size.POOL,)},
        Route.DIRECT,
        "{sender} and {to} share memory; the body goes by the pair's pool",
        _NO_PAIR,
    ),
    # By the journal into an inbox.
    _refused(
        "low_other_route",
        {**_LOW, "route": (Route.DIRECT, Route.RELAYED, Route.SOCKET)},
        "lane_unavailable",
        "The lane {lane} goes by journal, not {route}",
        "Ask for no route, or for another priority.",
    ),
    _refused(
        "low_request",
        {**_LOW, "verb": ("request",)},
        "not_on_this_lane",
        "A request lives as long as its asker waits: it is not kept",
        "Ask with priority normal, or send a message.",
    ),
    _refused(
        "low_publish",
        {**_LOW, "verb": ("publish",)},
        "not_on_this_lane",
        "An event is kept where a durable subscription wants it, not by its publisher's wish",
        "Publish with priority normal.",
    ),
    # Through agentd's socket into an inbox.
    _refused(
        "durable_request",
        {**_NORMAL, "durable": (True,), "verb": ("request",)},
        "not_on_this_lane",
        "A request lives as long as its asker waits: it is not kept",
        "Leave out durable, or send a message.",
    ),
    _refused(
        "durable_publish",
        {**_NORMAL, "durable": (True,), "verb": ("publish",)},
        "not_on_this_lane",
        "An event is kept where a durable subscription wants it, not by its publisher's wish",
        "Leave out durable.",
    ),
    _refused(
        "normal_other_route",
        {**_NORMAL, "route": (Route.DIRECT, Route.RELAYED, Route.JOURNAL)},
        "lane_unavailable",
        "The lane {lane} goes by socket, not {route}",
        "Ask for no route, or for another priority.",
    ),
    _refused(
        "request_to_nobody",
        {**_NORMAL, "verb": ("request",), "recipient": (*_NOBODY, Recipient.ABSENT)},
        "no_responder",
        "{to} is absent: nobody would reply",
        "Send it a message instead; it finds that in its inbox.",
    ),
    _refused(
        "normal_unknown",
        {**_INBOX, "verb": ("send",), "recipient": (Recipient.UNKNOWN,)},
        "no_such_agent",
        "No agent {to} is known",
    ),
    _refused(
        "reply_to_nobody",
        {**_INBOX, "verb": ("reply",), "recipient": _NOBODY},
        "absent",
        "{to} does not wait for a reply any more, and takes no mail",
    ),
    _refused(
        "normal_too_large",
        {**_INBOX, "size": (Size.TOO_LARGE,)},
        "too_large",
        "The body has {size_bytes} bytes, more than message.max_body_bytes",
    ),
    _goes(
        "low",
        _LOW,
        Route.JOURNAL,
        "agentd writes this to its journal, then puts it into {to}'s inbox",
        "it waits there for as long as {to} is absent",
    ),
    _goes(
        "published",
        {**_NORMAL, "verb": ("publish",)},
        Route.SOCKET,
        "agentd gives the event to whoever subscribes to {to} then",
        "who subscribes now may have left by then, and others may have come",
    ),
    _goes(
        "kept_for_new",
        {**_NORMAL, "recipient": (Recipient.NEW,)},
        Route.SOCKET,
        "nobody knows {to} yet; agentd keeps this on disk for it",
        "{to} is unknown now; it may have come by then",
    ),
    _goes(
        "kept",
        {**_NORMAL, "recipient": (Recipient.ABSENT,)},
        Route.SOCKET,
        "{to} is absent; agentd keeps this on disk for it",
        "{to} is absent now; it may have come by then",
    ),
    _goes(
        "request",
        {**_NORMAL, "verb": ("request",)},
        Route.SOCKET,
        "agentd asks {to} on its socket",
        "{to} is live now; if it leaves first, this is refused: no_responder",
    ),
    _goes(
        "durable",
        {**_NORMAL, "durable": (True,)},
        Route.SOCKET,
        "agentd writes this to its journal, then hands it over on {to}'s socket",
        "{to} is live now; if it leaves first, this waits for it on disk",
    ),
    _goes(
        "normal",
        _NORMAL,
        Route.SOCKET,
        "agentd puts this into {to}'s inbox and hands it over on its socket",
        "{to} is live now; if it leaves first, this waits for it on disk",
    ),
)

BY_NAME: Final = {row.name: row for row in TABLE}
#: What was decided before, by case: no more of them than the fields have values.
_decided: Final[dict[Case, Row | None]] = {}
_hopes: Final[dict[tuple[str, Priority, bool, Route | None], bool]] = {}


def decide(case: Case) -> Row | None:
    """The row that holds; None where that depends on what nobody has looked at yet. LookupError for a case that there
    is not: of a lane that this version does not have open."""
    try:
        return _decided[case]
    except KeyError:
        row = _decided[case] = _first(case)
        return row


def _first(case: Case) -> Row | None:
    fields = case._asdict()
    unseen = {name for name in ("attached", "recipient", "size") if fields[name] is None}
    for row in TABLE:
        if all(name in unseen or fields[name] in values for name, values in row.when.items()):
            return None if unseen & row.when.keys() else row
    raise LookupError(f"no row for {case}")


def may_go_direct(verb: str, priority: Priority, durable: bool, route: Route | None) -> bool:
    """Whether this goes from ring to ring where both ends have one and the body fits: what a sender that has shared
    memory knows before it asks for a pair. What may not is said to agentd, which relays it or says why not."""
    asked = (verb, priority, durable, route)
    may = _hopes.get(asked)
    if may is None:
        case = Case(verb, priority, durable, route, True, True, Recipient.RING, Size.INLINE)
        row = decide(case) if priority in DIRECT_LANES else None
        may = _hopes[asked] = row is not None and row.route is Route.DIRECT
    return may


def refusal(name: str, **words: object) -> AgentdError:
    """The error that a row is."""
    row = BY_NAME[name]
    error = BY_CODE[row.code](row.reason.format(**words), row.hint.format(**words))
    error.row = name
    return error
