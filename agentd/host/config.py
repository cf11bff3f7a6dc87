"""The configuration: every limit of agentd, its default, and where its value came from.

A value is taken from the defaults, then the TOML file, then the environment (AGENTD_INBOX_MAX_MESSAGES=100), then the
command line (--set inbox.max_messages=100); the last one wins. What is wrong is refused with the place it came from,
the key and what was expected.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from agentd.wire.errors import ConfigError

Count = Annotated[int, Meta(ge=1, le=100_000_000)]
Bytes = Annotated[int, Meta(ge=1024, le=1 << 40)]
Seconds = Annotated[float, Meta(ge=0.0, le=10 * 366 * 86400.0)]
Rate = Annotated[float, Meta(ge=0.0, le=1e9)]
Period = Annotated[float, Meta(ge=1.0, le=10 * 366 * 86400.0)]  # what is done again and again takes a rest between


class Section(Struct, forbid_unknown_fields=True, frozen=True):
    """One table of the file."""


class MessageLimits(Section, frozen=True):
    """[message]: one message. Past it: too_large, too_many_hops, dead letter."""

    max_body_bytes: Annotated[int, Meta(ge=1024, le=1 << 30)] = 16 << 20
    max_headers_bytes: Bytes = 16 << 10
    max_hops: Count = 32
    max_attempts: Count = 5
    max_delay_s: Seconds = 366 * 86400.0  # that it may wait for its time; past it limit_reached


class InboxLimits(Section, frozen=True):
    """[inbox]: one agent's waiting and held messages. Past it: backpressure to the sender."""

    max_messages: Count = 10_000
    max_bytes: Bytes = 64 << 20
    max_held: Count = 8192  # handed out and not settled. Past it nothing more is handed out, whatever is asked for
    max_total_bytes: Bytes = 1 << 30  # all agents together


class AgentLimits(Section, frozen=True):
    """[agents]: known names. Past it: limit_reached."""

    max_names: Count = 4096
    forget_after_s: Period = 30 * 86400.0
    max_keys: Count = 10_000  # idempotency keys remembered a sender
    keep_keys_s: Seconds = 600.0
    max_requests: Count = 1024  # requests under way, an agent, over all its sessions


class RateLimits(Section, frozen=True):
    """[rate]: how fast an agent may speak. Past it: one rate_limited; its connection is not read until there is room.

    What tells a runaway loop from a fast pipeline is that it does not end. So the burst is large: at full speed,
    200,000 a second, a pipeline has ten seconds before anybody stops it. The rate is what nobody keeps up for ever by
    intention, a twentieth of what the daemon can do: beside a runaway that is held to it, everybody else and the rest
    of the machine go on as before. An event costs as much again for each subscriber, hence the lower rate on each
    topic. 0 is no limit.
    """

    messages_per_s: Rate = 10_000.0  # messages, requests, replies and events of one agent
    messages_burst: Count = 2_000_000  # so many at once; full again after a pause, at the rate
    events_per_s: Rate = 1_000.0  # events of one agent on one topic
    events_burst: Count = 50_000
    max_topics: Count = 64  # topics with a rate of their own, an agent; any further ones share one


class TraceLimits(Section, frozen=True):
    """[trace]: what is remembered of ended messages. Past it: the oldest are forgotten."""

    max_messages: Count = 10_000  # an agent
    keep_s: Seconds = 600.0


class DeadLimits(Section, frozen=True):
    """[dead]: dead letters an agent. Past it: the oldest is dropped and counted."""

    max_messages: Count = 1000
    max_bytes: Bytes = 64 << 20


class TopicLimits(Section, frozen=True):
    """[topics]: subscriptions. Past them: limit_reached, or a gap that is reported to both ends. What a durable one may
    hold is [inbox]'s."""

    max_subscriptions: Count = 1024  # an agent, over all its sessions
    max_events: Count = 1024  # on their way to one subscription; of a durable one, unsettled
    max_event_bytes: Bytes = 32 << 20  # on their way to one session
    keep_s: Seconds = 30 * 86400.0  # events of durable subscriptions expire after it; 0: never


class ConnectionLimits(Section, frozen=True):
    """[connections]: the socket. Past them: busy, or the connection is closed."""

    max_connections: Count = 4096
    max_half_open: Count = 256  # connected, no hello yet. Past it the oldest of them is ended, busy
    hello_s: Seconds = 5.0
    max_unfinished_bytes: Bytes = 256 << 20  # of frames that have begun, in all. Past it who has most is ended, busy
    frame_s: Seconds = 30.0
    max_unread_bytes: Bytes = 256 << 10  # what a client does not read: past it the daemon stops reading from it
    spin_us: Annotated[float, Meta(ge=0.0, le=1e6)] = 300.0  # looks at most so long for more before it sleeps; 0: never


class DirectLimits(Section, frozen=True):
    """[direct]: shared memory between two agents. Past the limits: limit_reached, and messages are relayed."""

    enabled: bool = True
    critical_bytes: Annotated[int, Meta(ge=4096, le=1 << 26)] = 256 << 10  # a ring; a power of two
    verdict_bytes: Annotated[int, Meta(ge=4096, le=1 << 24)] = 16 << 10  # the ring back; a power of two
    max_pairs: Count = 4096  # in all
    max_pairs_a_session: Count = 512  # that it sends into, and as many that it reads
    max_bytes: Bytes = 512 << 20  # all pairs together
    huge_pages: bool = False  # made of huge pages where there are some, else of usual ones, with one notice
    token_s: Seconds = 5.0  # how long the way to the grants socket may take
    return_s: Seconds = 10.0  # after a start: how long the other end of a presented pair is waited for
    spin_us: Annotated[float, Meta(ge=0.0, le=1e6)] = 200.0  # a reader looks so long before it sleeps; 0: never
    pin: str = "auto"  # the cores of pinned threads: auto, off, or a list such as 2,3


class HighSettings(Section, frozen=True):
    """[high]: what pairs of the high lane have beyond [direct]'s. Past max_pool_bytes pairs have no pool: too_large."""

    ring_bytes: Annotated[int, Meta(ge=4096, le=1 << 26)] = 1 << 20  # what is small travels in it; a power of two
    pool_bytes: Annotated[int, Meta(ge=0, le=1 << 31)] = 64 << 20  # a pair's, for bodies over 16 KiB; taken as needed
    max_pool_bytes: Bytes = 4 << 30  # all pools together
    async_bytes: Annotated[int, Meta(ge=4096, le=1 << 30)] = 1 << 20  # above it the kernel copies, and the loop goes on
    io_uring: bool = True  # False: senders do without
    sqpoll_cores: list[Annotated[int, Meta(ge=0, le=4095)]] = []  # for threads of the kernel that submit, a sender each


class JournalSettings(Section, frozen=True):
    """[journal]: what is kept on disk. Past max_bytes and min_free_bytes: disk_full, once history has given way."""

    level: Literal["mapped", "synced"] = "synced"  # when a message is called stored: the kernel has it, or the disk
    segment_bytes: Annotated[int, Meta(ge=1 << 20, le=1 << 31, multiple_of=1 << 16)] = 64 << 20  # a file's
    checkpoint_bytes: Bytes = 64 << 20  # so much is read at a start, at most
    io_uring: bool = True  # False: a thread syncs
    history: Literal["kept", "all"] = "kept"  # all: what is said on NORMAL is recorded too, though nothing needs it
    history_s: Seconds = 7 * 86400.0  # what nothing needs any more stays for that long, for `agentctl history`,
    history_bytes: Annotated[int, Meta(ge=0, le=1 << 40)] = 256 << 20  # as far as its files are no larger than that
    max_bytes: Bytes = 4 << 30  # of all its files; at least four segments
    min_free_bytes: Annotated[int, Meta(ge=0, le=1 << 40)] = 256 << 20  # of its file system, left to others


class ShutdownLimits(Section, frozen=True):
    """[shutdown]: the orderly stop."""

    drain_s: Seconds = 5.0


class LogSettings(Section, frozen=True):
    """[log]: diagnostics on stderr, or in the file of --log-file. Past its size that begins anew; one part is kept."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    max_file_bytes: Bytes = 1 << 20


class AimSettings(Section, frozen=True):
    """[aims]: what a message should take on each lane, in µs: end to end for the direct ones, the daemon's own time for
    the others. Only shown, by `agentctl lanes`, beside what was measured."""

    critical_us: Annotated[float, Meta(gt=0)] = 0.1
    high_us: Annotated[float, Meta(gt=0)] = 1.0
    normal_us: Annotated[float, Meta(gt=0)] = 10.0
    low_us: Annotated[float, Meta(gt=0)] = 100.0


class StatsLimits(Section, frozen=True):
    """[stats]: the counters in shared memory. Past it: the busiest agents have a row, the others none."""

    max_agents: Annotated[int, Meta(ge=1, le=100_000)] = 256


class Config(Struct, forbid_unknown_fields=True, frozen=True):
    """All of it."""

    message: MessageLimits = MessageLimits()
    inbox: InboxLimits = InboxLimits()
    agents: AgentLimits = AgentLimits()
    rate: RateLimits = RateLimits()
    trace: TraceLimits = TraceLimits()
    dead: DeadLimits = DeadLimits()
    topics: TopicLimits = TopicLimits()
    connections: ConnectionLimits = ConnectionLimits()
    direct: DirectLimits = DirectLimits()
    high: HighSettings = HighSettings()
    journal: JournalSettings = JournalSettings()
    shutdown: ShutdownLimits = ShutdownLimits()
    stats: StatsLimits = StatsLimits()
    aims: AimSettings = AimSettings()
    log: LogSettings = LogSettings()


#: "inbox.max_messages" to its type, for every setting.
KEYS: dict[str, Any] = {
    f"{section.name}.{field.name}": field.type
    for section in msgspec.structs.fields(Config)
    for field in msgspec.structs.fields(section.type)
}


def env_name(key: str) -> str:
    """The environment variable of a setting."""
    return "AGENTD_" + key.replace(".", "_").upper()


def load_config(
    path: Path | None, environ: Mapping[str, str], settings: Iterable[str] = (), *, required: bool = False
) -> tuple[Config, dict[str, str]]:
    """The configuration, and the origin of each setting that is not a default. A `required` file must exist."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, key, value in [
        *(_from_file(path, required) if path else ()),
        *((env_name(key), key, environ[env_name(key)]) for key in KEYS if env_name(key) in environ),
        *map(_from_flag, settings),
    ]:
        values[key] = _checked(origin, key, value)
        origins[key] = origin
    return _assemble(values), origins


def unheard(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Variables that look like settings and are none, which the daemon passes over, each with the one it resembles."""
    known = [env_name(key) for key in KEYS]
    sections = tuple(env_name(field.name) + "_" for field in msgspec.structs.fields(Config))
    strays = sorted(name for name in environ if name.startswith(sections) and name not in known)
    return [(name, (difflib.get_close_matches(name, known, 1, 0.5) or [""])[0]) for name in strays]


def default_of(key: str) -> Any:
    """What a setting is when nobody sets it."""
    return value_of(Config(), key)


def value_of(config: Config, key: str) -> Any:
    """What a setting is in `config`."""
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def _assemble(values: Mapping[str, Any]) -> Config:
    sections: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, name = key.split(".")
        sections.setdefault(section, {})[name] = value
    return msgspec.convert(sections, Config)


def _from_file(path: Path, required: bool) -> Iterable[tuple[str, str, Any]]:
    try:
        tables = tomllib.loads(path.read_text())
    except FileNotFoundError:
        if required:
            raise ConfigError(f"{path} does not exist", "Name a configuration file that does.") from None
        return
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", "Mend it, or start without it.") from None
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    for section, table in tables.items():
        if not isinstance(table, dict):
            raise _unknown(str(path), section)
        for name, value in table.items():
            yield str(path), f"{section}.{name}", value


def _from_flag(setting: str) -> tuple[str, str, str]:
    key, equals, value = setting.partition("=")
    if not equals:
        raise ConfigError(f"--set {setting}: expected KEY=VALUE", "Such as --set inbox.max_messages=100.")
    return "--set", key, value


def _checked(origin: str, key: str, value: Any) -> Any:
    kind = KEYS.get(key)
    if kind is None:
        raise _unknown(origin, key)
    spoken = isinstance(value, str)
    if spoken and isinstance(default_of(key), list):  # 2,3 or [2, 3], as the environment and --set can say it
        value = [part for part in re.split(r"[\s,]+", value.strip("[] ")) if part]
    try:
        return msgspec.convert(value, kind, strict=not spoken)
    except msgspec.ValidationError as error:
        expected = re.sub(r"^Expected ", "expected ", str(error).replace("`", ""))
        raise ConfigError(f"{origin}: {key} = {value!r}: {expected}", f"Default: {default_of(key)!r}.") from None


def _unknown(origin: str, key: str) -> ConfigError:
    near = difflib.get_close_matches(key, KEYS, 1, 0.5)
    hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(KEYS)}."
    return ConfigError(f"{origin}: there is no setting {key!r}", hint)
