"""What may be asked of a message beyond recipient and body depends on what carries it: the refusals of the rest."""

from __future__ import annotations

from agentd.hub import delays
from agentd.hub.receipts import ACCEPTED, STORED
from agentd.wire.errors import BadRequest, NotOnThisLane
from agentd.wire.messages import Options, State


def is_of_storing(options: Options) -> bool:
    """Whether it is about what only the journal does."""
    return options.level is not None or options.wait is STORED


def told_later(options: Options) -> State:
    """The state that its sender is told of besides. `stored` is what it is told first, where the journal has it."""
    return ACCEPTED if options.wait is STORED else options.wait


def check_not_kept(options: Options) -> None:
    """BadRequest for what only messages have that the journal keeps."""
    if is_of_storing(options):
        raise BadRequest(
            "This message is not kept: nobody will say that it is stored",
            "Ask for durable, or for priority low; mail for an absent agent is kept anyway.",
        )


def check_request(options: Options) -> None:
    """BadRequest for what only messages have."""
    asked = options.key is not None or delays.is_asked(options) or is_of_storing(options)
    if options.wait is not ACCEPTED or asked:
        raise BadRequest(
            "A request takes no wait, key, delay or level", "Its answer is the reply, or why there is none."
        )


def check_event(options: Options) -> None:
    """BadRequest for what only messages have."""
    asked = options.ttl is not None or options.key is not None or delays.is_asked(options) or is_of_storing(options)
    if options.wait is not ACCEPTED or asked:
        raise BadRequest("An event takes no wait, ttl, key, delay or level", "They are for messages to one agent.")


def check_direct(options: Options) -> None:
    """NotOnThisLane for what needs an inbox, or the journal."""
    if options.key is not None:
        raise NotOnThisLane("A direct lane knows no idempotency keys", "It never sends a message twice.")
    if delays.is_asked(options):
        raise NotOnThisLane("A direct lane keeps nothing for later", "Priority normal and low take a delay.")
    if is_of_storing(options):
        raise NotOnThisLane("A direct lane stores nothing", "Priority low does, and normal with durable.")
