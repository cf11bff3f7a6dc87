"""What a caller asks for, checked here: the daemon closes a connection on which a field is out of range."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from agentd.wire.errors import BadRequest
from agentd.wire.messages import Level, Options, Priority, Route, State
from agentd.wire.names import id_value

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from datetime import datetime
    from typing import TypeAlias, TypedDict

    FilePath: TypeAlias = str | os.PathLike[str]
    Progress: TypeAlias = Callable[[int, int], object]  # done and total, in bytes

    class FileOptions(TypedDict, total=False):
        """What send_file takes beyond recipient and path."""

        name: str | None  # what the receiver is told that it is called
        timeout: float | None  # seconds that nothing may move
        wait: State | str  # delivered: it lies there whole; acked: its receiver says that it is done with it
        ttl: float | None  # seconds until nobody need begin to save it
        progress: Progress | None  # called as its bytes are saved

    class SendOptions(TypedDict, total=False):
        """What send, post, publish, request and reply take beyond recipient and body."""

        priority: Priority | str  # chooses the lane
        durable: bool | None  # True: journal it first
        ttl: float | None  # seconds until it expires undelivered
        allow_absent: bool  # the recipient need not be known yet
        key: str | None  # the same key is accepted once
        headers: dict[str, str] | None
        re: str | int | None  # the id of the message that this one is about
        hops: int  # how often what led to this was passed on already
        route: Route | str | None  # demanded, else LaneUnavailable
        delay: float | None  # seconds until anybody is given it; ttl counts from then
        level: Level | str | None  # what it survives once it is stored: mapped, a kill; synced, a power cut
        at: datetime | float | None  # the same as a time: seconds since 1970, or a datetime, local unless it says

    class PostOptions(SendOptions, total=False):
        """What post takes besides: its ticket settles when that state is reached."""

        wait: State | str


#: They never go from ring to ring.
_RELAYED = (Priority.NORMAL, Priority.LOW, Priority.BATCH)
_ACCEPTED = State.ACCEPTED
_ENDS = (State.EXPIRED, State.DEAD, State.UNKNOWN)
_encode = msgspec.msgpack.Encoder().encode
_decode_options = msgspec.msgpack.Decoder(Options).decode

S = TypeVar("S", bound=msgspec.Struct)


#: What most messages with options ask for, by the priority as it may be given. Nobody changes these.
_PRIORITY_ALONE = {priority.value: Options(priority=priority) for priority in Priority}


def make_options(given: Any) -> Options | None:
    """The options on the wire, None where the caller asked for nothing special."""
    if not given:
        return None
    if len(given) == 1 and isinstance(priority := given.get("priority"), str) and priority in _PRIORITY_ALONE:
        return _PRIORITY_ALONE[priority]
    if isinstance(given.get("re"), str):
        given = {**given, "re": id_value(given["re"])}
    if hasattr(given.get("at"), "timestamp"):
        given = {**given, "at": given["at"].timestamp()}
    options = _checked(Options(**given), _decode_options)
    if options.wait in _ENDS:
        raise BadRequest(f"Nobody can wait for {options.wait}", "wait is accepted, delivered or acked.")
    return options


def told_later(options: Options | None) -> State:
    """The state whose receipt follows the first answer. That one says `stored` where this is asked for."""
    return _ACCEPTED if options is None or options.wait is State.STORED else options.wait


def may_go_direct(verb: str, options: Options) -> bool:
    """Whether the table of ways has it go from ring to ring, where there are rings at both ends."""
    if options.priority in _RELAYED:
        return False
    from agentd.wire import choice  # which most messages do not need

    return choice.may_go_direct(verb, options.priority, bool(options.durable), options.route)


def checked(verb: S) -> S:
    """`verb` as the daemon will read it, else BadRequest that names the field."""
    return _checked(verb, msgspec.msgpack.Decoder(type(verb)).decode)


def _checked(struct: S, decode: Any) -> S:
    try:
        read: S = decode(_encode(struct))
    except msgspec.ValidationError as error:
        raise BadRequest(_named(struct, str(error))) from None
    except (UnicodeEncodeError, OverflowError, TypeError) as error:
        raise BadRequest(f"{type(struct).__name__} can't be sent: {error}") from None
    return read


def _named(struct: msgspec.Struct, text: str) -> str:
    """msgspec names a place in the array; people know the argument."""
    tagged = struct.__struct_config__.tag is not None

    def name(match: re.Match[str]) -> str:
        place = int(match[1]) - tagged
        fields = struct.__struct_fields__
        return f"`{fields[place]}`" if 0 <= place < len(fields) else match[0]

    return re.sub(r"`\$\[(\d+)\][^`]*`", name, text)
