"""Everything that is said between a client and the daemon: one struct a verb, one verb a thing.

On the binary face a message is the msgpack array [tag, field, ...]; on the JSON face an object with the same fields by
name (ndjson.py). Fields may be added at the end with a default; tags and the order of fields are never changed or
used again. `cid` is the client's own number for a call: the answer carries it back. 0 means no answer is wanted.
The modules of structs do without `from __future__ import annotations`: msgspec would have
to compile each annotation when they are imported. Times are seconds since 1970; `_s` and `timeout` are seconds.
"""

from __future__ import annotations

from agentd.wire.answers import (
    Accepted,
    Answer,
    Attachment,
    Bye,
    Chunk,
    Details,
    Done,
    Error,
    Found,
    Invitation,
    Joined,
    LaggedEvent,
    Message,
    Receipt,
    Stop,
    Subscribed,
    Welcome,
)
from agentd.wire.types import (
    VERSION,
    Cid,
    Id,
    Kind,
    Priority,
    Route,
    Seconds,
    State,
    Step,
    Word,
)
from agentd.wire.verbs import (
    Ack,
    Agents,
    Attach,
    Choose,
    Completion,
    Dead,
    Delivered,
    Drop,
    Find,
    Forget,
    GiveBack,
    Halt,
    Hello,
    Inbox,
    Join,
    Leave,
    Nack,
    Notice,
    Options,
    Pause,
    Publish,
    Receive,
    Reject,
    Reply,
    Request,
    Requeue,
    Send,
    Stats,
    Status,
    Subscribe,
    Trace,
    Unsubscribe,
    Working,
)
from agentd.wire.views import (
    AgentsView,
    AgentView,
    ChoiceView,
    CompletionView,
    DeadLetter,
    DeadView,
    FlowView,
    HaltRow,
    HaltView,
    InboxView,
    LaneView,
    Latency,
    MailView,
    NoticeRow,
    NoticeView,
    Refusal,
    StatsView,
    StatusView,
    TraceView,
    Transition,
    WordView,
)

__all__ = [
    "VERSION",
    "Accepted",
    "Ack",
    "AgentView",
    "Agents",
    "AgentsView",
    "Answer",
    "Attach",
    "Attachment",
    "Bye",
    "ChoiceView",
    "Choose",
    "Chunk",
    "Cid",
    "ClientMessage",
    "Completion",
    "CompletionView",
    "DaemonMessage",
    "Dead",
    "DeadLetter",
    "DeadView",
    "Delivered",
    "Details",
    "Done",
    "Drop",
    "Error",
    "Find",
    "FlowView",
    "Forget",
    "Found",
    "GiveBack",
    "Halt",
    "HaltRow",
    "HaltView",
    "Hello",
    "Id",
    "Inbox",
    "InboxView",
    "Invitation",
    "Join",
    "Joined",
    "Kind",
    "LaggedEvent",
    "LaneView",
    "Latency",
    "Leave",
    "MailView",
    "Message",
    "Nack",
    "Notice",
    "NoticeRow",
    "NoticeView",
    "Options",
    "Pause",
    "Priority",
    "Publish",
    "Receipt",
    "Receive",
    "Refusal",
    "Reject",
    "Reply",
    "Request",
    "Requeue",
    "Route",
    "Seconds",
    "Send",
    "State",
    "Stats",
    "StatsView",
    "Status",
    "StatusView",
    "Step",
    "Stop",
    "Subscribe",
    "Subscribed",
    "Trace",
    "TraceView",
    "Transition",
    "Unsubscribe",
    "Welcome",
    "Word",
    "WordView",
    "Working",
]

ClientMessage = (
    Hello | Join | Leave
    | Send | Request | Reply | Publish | Subscribe | Unsubscribe
    | Receive | Delivered | Ack | Nack | Reject | GiveBack | Working
    | Find | Inbox | Trace | Agents | Status | Stats | Dead | Requeue | Drop | Forget
    | Notice | Completion | Choose
    | Attach | Halt | Pause
    | Chunk
)  # fmt: skip

DaemonMessage = (
    Welcome | Joined | Done | Error | Accepted | Receipt | Subscribed | Found | Attachment
    | Message | Answer | LaggedEvent | Bye | Invitation | Stop
    | AgentsView | InboxView | TraceView | StatusView | StatsView | DeadView
    | NoticeView | CompletionView | HaltView | ChoiceView
    | Chunk
)  # fmt: skip
