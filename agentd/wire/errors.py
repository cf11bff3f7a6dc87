"""Every error agentd names: one tree, one stable wire code a class.

The code is the contract (clients in other languages switch on it), the class is its Python face, `exit_status` is what
`agentctl` exits with. `retryable` says whether the same call can succeed later without anybody changing it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it; to import that would cost a completion a tenth of its time
if TYPE_CHECKING:
    from typing import Any, ClassVar


class AgentdError(Exception):
    """The root. `message` says what and which, `hint` what to do next."""

    code: ClassVar[str] = "internal"
    exit_status: ClassVar[int] = 70
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, hint: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after = retry_after
        #: Timeout and Undelivered of a message that was accepted: its last receipt.
        self.receipt: Any = None
        #: The row of the table of ways (wire/choice.py) that refused it, where one did.
        self.row = ""

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InternalError(AgentdError):
    """A defect of agentd itself; the daemon's log has the traceback."""


# The caller's input was wrong: sending the same again can't help.


class BadRequest(AgentdError):
    """The frame or verb is malformed, or a field is out of range."""

    code = "bad_request"
    exit_status = 65


class BadName(BadRequest):
    """An agent name, topic or pattern breaks the naming rule."""

    code = "bad_name"


class BadBody(BadRequest):
    """The body can't be encoded, or is not what its content kind says."""

    code = "bad_body"


class TooLarge(BadRequest):
    """The body or frame is over the limit that the message names."""

    code = "too_large"


class TooManyHops(BadRequest):
    """The message was passed on too often: agents are answering each other in a loop."""

    code = "too_many_hops"


class VersionMismatch(AgentdError):
    """Client and daemon speak different protocol versions."""

    code = "version_mismatch"
    exit_status = 69


# What the caller named is not there.


class NoSuchAgent(AgentdError):
    """Nobody of that name is known."""

    code = "no_such_agent"
    exit_status = 66


class NoSuchMessage(AgentdError):
    """No message has that id, or the prefix names several."""

    code = "no_such_message"
    exit_status = 66


# agentd can't do it now, or not here.


class Unreachable(AgentdError):
    """No daemon answers on the socket."""

    code = "unreachable"
    exit_status = 69
    retryable = True


class LaneUnavailable(AgentdError):
    """The lane or route that was asked for can't carry this message here."""

    code = "lane_unavailable"
    exit_status = 69


class JournalFailed(AgentdError):
    """The disk refused what it had to keep: nothing more is stored until the daemon is started anew."""

    code = "journal_failed"
    exit_status = 69


class TryAgain(AgentdError):
    """Trunk of the passing refusals: the same call may succeed later."""

    code = "busy"
    exit_status = 75
    retryable = True


class Busy(TryAgain):
    """A limit on connections or calls under way is reached."""


class Backpressure(TryAgain):
    """The receiver's inbox is full; nothing was accepted."""

    code = "backpressure"


class RateLimited(TryAgain):
    """The sender is over its rate."""

    code = "rate_limited"


class LimitReached(TryAgain):
    """A bound of the configuration is reached; the message names it."""

    code = "limit_reached"


class ShuttingDown(TryAgain):
    """The daemon is stopping and takes no new work."""

    code = "shutting_down"


class Timeout(TryAgain):
    """The time given was over first. What was already accepted stays accepted."""

    code = "timeout"


class Absent(TryAgain):
    """The agent is known but not live, and this needs it live."""

    code = "absent"


class NoResponder(TryAgain):
    """Nobody live answers to that name, or the responder is gone with the request."""

    code = "no_responder"


class DiskFull(TryAgain):
    """The journal has no room, so that nothing more can be kept. What was stored is not lost."""

    code = "disk_full"


class LaneBusy(TryAgain):
    """Another consumer of this session reads that lane."""

    code = "lane_busy"


class ReceiverGone(TryAgain):
    """The session at the other end of this channel is gone."""

    code = "receiver_gone"


class FileChanged(TryAgain):
    """A file changed while it was being sent: nothing of it is kept."""

    code = "file_changed"


class FileIncomplete(TryAgain):
    """A file did not come whole: its sender is gone, has given up, or could not read it. Nothing of it is kept."""

    code = "file_incomplete"


class NotOnThisLane(AgentdError):
    """A direct lane has no such thing: it delivers at most once, to one live session."""

    code = "not_on_this_lane"
    exit_status = 65


# Somebody said no.


class NameInUse(AgentdError):
    """Another session takes this name's mail."""

    code = "name_in_use"
    exit_status = 77


class NotPermitted(AgentdError):
    """This session may not do that."""

    code = "not_permitted"
    exit_status = 77


class Rejected(AgentdError):
    """The responder rejected the request; the message is its reason."""

    code = "rejected"
    exit_status = 1


class Undelivered(AgentdError):
    """A message ended dead or expired, or its fate is unknown, and nobody had read that."""

    code = "undelivered"
    exit_status = 1


class Lagged(AgentdError):
    """A subscription has a gap: `missed` events were not kept for it (None: nobody knows how many)."""

    code = "lagged"
    exit_status = 1

    def __init__(self, message: str, hint: str = "", *, retry_after: float | None = None, missed: int | None = None):
        super().__init__(message, hint, retry_after=retry_after)
        self.missed = missed


class ConfigError(AgentdError):
    """A setting is wrong; the message names file, key and what was expected."""

    code = "config"
    exit_status = 78


def _tree(root: type[AgentdError]) -> list[type[AgentdError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _tree(child))]


#: Stable wire code to class; a code this version does not know becomes a plain AgentdError carrying it.
BY_CODE: dict[str, type[AgentdError]] = {kind.code: kind for kind in _tree(AgentdError)}


def from_wire(code: str, message: str, hint: str, retry_after: float | None) -> AgentdError:
    """The exception that an error on the wire stands for."""
    kind = BY_CODE.get(code)
    if kind is None:
        kind = type("UnknownError", (AgentdError,), {"code": code})
    return kind(message, hint, retry_after=retry_after)
