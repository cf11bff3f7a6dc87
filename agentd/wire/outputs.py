"""What each verb of agentctl prints with --json: one struct a shape, and at the end which verb prints which.

Views of the daemon are printed as the JSON face shows them. The structs here are for what agentctl puts together
itself. `agentctl schema` makes JSON Schemas of them, and the tests hold every output against its schema.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from agentd.wire import outputs_journal as journal
from agentd.wire import views
from agentd.wire.bodies import Content
from agentd.wire.types import Id, Priority, Route, State


class Failure(Struct):
    """What went wrong, and what to do next."""

    code: str
    message: str
    hint: str
    retryable: bool
    retry_after: float | UnsetType = UNSET  # seconds
    id: Id | UnsetType | None = UNSET  # of a message that was accepted all the same
    state: State | UnsetType = UNSET  # of that message
    row: str | UnsetType = UNSET  # send --dry-run: of the table of ways, that refuses it


class Failed(Struct):
    """Any verb that fails: this instead of what it prints otherwise, or after it."""

    error: Failure


class Receipt(Struct):
    """The state that a message has reached. What nobody knows is null."""

    id: Id | None
    state: State
    at: float | None
    lane: Priority | None
    route: Route | None
    note: str


class Sent(Receipt):
    """The state that a message has reached, and whose it is."""

    to: str
    file: str | UnsetType = UNSET  # the name of the file that was sent
    size_bytes: int | UnsetType = UNSET  # of that file
    until: float | UnsetType = UNSET  # nobody is given it before, as was asked


class Way(Struct):
    """send --dry-run: the way that a message would take, and which row of the table of ways says so."""

    to: str
    lane: Priority
    route: Route
    row: str
    reason: str
    unless: list[str]  # what holds now and may not any more when it is sent


class Published(Receipt):
    """How many subscriptions have an event, and which agents had no room for it."""

    topic: str
    reached: int | None
    refused: list[str]


class SavedFile(Struct):
    """A file that came with a message and is saved. The digest is that of its bytes as they were written."""

    name: str  # as its sender calls it, made safe
    size_bytes: int
    digest: str  # crc32c: and 8 hexadecimal digits
    path: str


class Taken(Struct):
    """A message, or an event, as its receiver gets it. `body` is what `content` says: text, JSON, base64."""

    id: Id
    sender: str
    provenance: str  # what the kernel says of the sender
    content: Content
    body: Any
    sent_at: float
    attempt: int
    lane: Priority
    wants_reply: bool
    topic: str | UnsetType = UNSET
    headers: dict[str, str] | UnsetType = UNSET
    re: Id | UnsetType = UNSET
    hops: int | UnsetType = UNSET
    event: Id | UnsetType = UNSET  # of a durable subscription: as its publisher knows it
    held: str | UnsetType = UNSET  # recv --hold: how long it is kept for this agent
    file: SavedFile | UnsetType = UNSET  # recv --save


class Missed(Struct):
    """How many events were not kept; null when nobody knows."""

    missed: int | None


class Gap(Struct):
    """A line of `subscribe` in place of events that it missed."""

    lagged: Missed


class Unsubscribed(Struct):
    """The durable subscription that is no more, and how many messages ended with it."""

    unsubscribed: str
    given_up: int


class Served(Struct):
    """A message that `serve` is done with."""

    id: Id
    sender: str
    done: str  # acked, replied, nacked, rejected, given back, or why none of these
    exit: int | None  # of the command
    took_s: float


class Settled(Struct):
    """Messages that reached their end, or went back."""

    state: Literal["acked", "nacked", "rejected"]
    ids: list[Id]


class DeadStory(views.DeadLetter):
    """A dead letter, and every state that it reached: who had it at each attempt, and why that failed."""

    transitions: list[views.Transition]


class Requeued(Struct):
    """Dead letters that are back in their inboxes."""

    requeued: int
    ids: list[Id]


class Dropped(Struct):
    """Dead letters that are gone."""

    dropped: int
    ids: list[Id]


class HaltedProcess(Struct):
    """A process of an agent that was to stop; `ended` is what it took: asked, SIGTERM, SIGKILL, or null: it has not."""

    agent: str
    pid: int
    command: str
    ended: Literal["asked", "SIGTERM", "SIGKILL"] | None


class Halted(Struct):
    """Every process of the agents that were to stop."""

    halted: list[HaltedProcess]


class Paused(Struct):
    """Agents that are given nothing from now on."""

    paused: list[str]


class Resumed(Struct):
    """Agents that are given their mail again."""

    resumed: list[str]


class Forgotten(Struct):
    """The name that nobody knows any more."""

    forgotten: str


class Lanes(Struct):
    """Every lane."""

    lanes: list[views.LaneView]


class Started(Struct):
    """The daemon that runs now."""

    started: bool  # by this call; else it ran already
    pid: int
    socket: str
    by: str
    log: str


class Stopped(Struct):
    """The daemon that runs no more; without a pid there was none."""

    stopped: bool
    pid: int | None


class Running(Struct):
    """Whether the daemon runs, who runs it, and where its things are."""

    running: bool
    pid: int | None  # also of one that does not answer
    by: str
    installed: bool
    unit: str  # its state, as systemd says
    log: str
    runtime_dir: str
    state_dir: str


class Installed(Struct):
    """What was written, and whether it is switched on."""

    files: list[str]
    enabled: bool
    lingers: bool


class Uninstalled(Struct):
    """What was removed, and what was left because somebody changed it."""

    removed: list[str]
    kept: list[str]


class Setting(Struct):
    """One setting of the configuration."""

    key: str
    value: Any
    default: Any
    origin: str  # a file, a variable, or `default`


class Settings(Struct):
    """Every setting."""

    settings: list[Setting]


class Checked(Struct):
    """The configuration is fine."""

    ok: Literal[True]
    file: str
    exists: bool
    set: list[str]


class Script(Struct):
    """A script for a shell."""

    shell: str
    script: str


class Guide(Struct):
    """What an agent must know, as Markdown."""

    guide: str


class Versions(Struct):
    """Who is how old; the daemon null when none runs."""

    agentctl: str
    protocol: int
    daemon: str | None


class DoctorFinding(Struct):
    """One thing that doctor looked at."""

    check: str
    severity: Literal["ok", "notice", "warning", "error"]
    what: str
    remedy: str
    fixable: bool  # by --fix


class Diagnosis(Struct):
    """All that doctor found, worst first, and what it fixed."""

    findings: list[DoctorFinding]
    fixed: list[str]
    ok: bool  # neither a warning nor an error


class SchemaRow(Struct):
    """One schema."""

    name: str
    about: str


class Schemas(Struct):
    """Every schema that there is."""

    schemas: list[SchemaRow]


#: A JSON Schema.
Schema = Annotated[dict[str, Any], Meta(extra_json_schema={"$ref": "https://json-schema.org/draft/2020-12/schema"})]

#: What a verb prints, by its words; several where the lines of a stream differ. `error` is printed by any that fails.
OUTPUTS: Final[dict[str, tuple[Any, ...]]] = {
    "error": (Failed,),
    "send": (Sent, Way),
    "recv": (Taken,),
    "inbox": (views.InboxView, views.NoticeView),
    "ack": (Settled,),
    "nack": (Settled,),
    "reject": (Settled,),
    "reply": (Receipt,),
    "request": (Taken,),
    "serve": (Served,),
    "publish": (Published,),
    "subscribe": (Taken, Gap),
    "unsubscribe": (Unsubscribed,),
    "trace": (views.TraceView,),
    "agents list": (views.AgentsView,),
    "agents forget": (Forgotten,),
    "halt": (Halted,),
    "pause": (Paused,),
    "resume": (Resumed,),
    "status": (views.StatusView,),
    "stats": (views.StatsView,),
    "lanes": (Lanes,),
    "dead list": (views.DeadView,),
    "dead show": (DeadStory,),
    "dead requeue": (Requeued,),
    "dead drop": (Dropped,),
    "daemon start": (Started,),
    "daemon restart": (Started,),
    "daemon stop": (Stopped,),
    "daemon status": (Running,),
    "daemon install": (Installed,),
    "daemon uninstall": (Uninstalled,),
    "config show": (Settings,),
    "config check": (Checked,),
    "doctor": (Diagnosis,),
    "history": (journal.HistoryRow, journal.Replayed, journal.HistoryEnd),
    "journal check": (journal.JournalChecked,),
    "journal ls": (journal.JournalSegments,),
    "journal dump": (journal.JournalRecord, journal.JournalGap),
    "journal backup": (journal.JournalCopy,),
    "journal gc": (journal.JournalUnneeded,),
    "journal repair": (journal.JournalRepaired,),
    "schema ls": (Schemas,),
    "schema show": (Schema,),
    "completion": (Script,),
    "guide": (Guide,),
    "version": (Versions,),
}
