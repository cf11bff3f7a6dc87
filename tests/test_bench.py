"""bench/: each benchmark runs, says what it promises to say, and counts what it measured. No thresholds, no rivals."""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parent.parent / "bench"
CLIENTS = ["agentd/asyncio", "agentd/blocking", "agentd/uvloop"]


def smoke(name: str) -> dict[str, Any]:
    """The one object that a smoke run prints."""
    done = subprocess.run(
        [sys.executable, BENCH / f"{name}.py", "--smoke", "--json"], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert isinstance(report, dict)
    return report


def check(report: dict[str, Any], name: str) -> None:
    """What every report has."""
    assert report["bench"] == name
    assert report["smoke"] is True
    assert report["runs"] == 1
    assert report["machine"]["cores"] >= 1
    assert set(report["machine"]) >= {"cpu", "smt", "kernel", "clock", "python", "uvloop"}
    for figure in report["figures"]:
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert report["verdicts"]
    for verdict in report["verdicts"]:
        assert verdict["verdict"] == "not run"
        assert "smoke" in verdict["reason"]


def figures(report: dict[str, Any], what: str) -> dict[tuple[str, int], dict[str, Any]]:
    """The figures of that name, by contender and size."""
    return {(f["contender"], f.get("size_bytes", 0)): f for f in report["figures"] if f["what"] == what}


def test_request_reply() -> None:
    report = smoke("request_reply")
    check(report, "request_reply")
    trips = figures(report, "round trip p50")
    relays = ["relay/asyncio", "relay/blocking", "relay/uvloop"]
    assert sorted(trips) == [(end, size) for end in [*CLIENTS, *relays] for size in (64, 1024)]
    for trip in trips.values():
        summary = trip["summary"]
        assert trip["verified"] == summary["count"] > 0
        assert 0 < summary["p50_us"] <= summary["p99_us"] <= summary["p999_us"] <= summary["max_us"]
    left_out = {left["what"]: left["reason"] for left in report["left_out"]}
    assert left_out["nats/asyncio"] == "a smoke run has no rivals"


def test_one_to_one() -> None:
    report = smoke("one_to_one")
    check(report, "one_to_one")
    rates = figures(report, "delivered and acked")
    assert sorted(rates) == [(client, size) for client in CLIENTS for size in (64, 1024)]
    for rate in rates.values():
        assert rate["value"] > 0
        assert rate["verified"] >= 6 * 500  # three chunks of warm-up, three or more that count
        assert rate["verified"] % 500 == 0
    assert sorted(figures(report, "daemon's processor time a message")) == [("agentd", 64), ("agentd", 1024)]


def test_many_agents() -> None:
    report = smoke("many_agents")
    check(report, "many_agents")
    for what in ("processor time", "pipelined", "round trip p50"):
        found = figures(report, f"a message, {what}")
        assert sorted(found) == [("1,000 agents", 64), ("10 agents", 64)]
        assert all(figure["verified"] >= 6 * 500 for figure in found.values())


def test_runaway() -> None:
    report = smoke("runaway")
    check(report, "runaway")
    phases = ["over its rate", "within burst"]
    for what in ("alone", "beside", "beside computing"):
        found = figures(report, f"p99 of a message, {what}")
        assert sorted(phase for phase, _ in found) == phases
        assert all(figure["verified"] == figure["summary"]["count"] > 0 for figure in found.values())
    speeds = figures(report, "the runaway sends")
    assert speeds["over its rate", 0]["value"] < speeds["within burst", 0]["value"]


def test_footprint() -> None:
    report = smoke("footprint")
    check(report, "footprint")
    memory = {f["what"]: f["value"] for f in report["figures"]}
    assert memory["daemon's resident memory"] > 1
    assert "resident memory for each agent" in memory


def test_startup() -> None:
    report = smoke("startup")
    check(report, "startup")
    sends = figures(report, "agentctl send, wall p50")["agentctl", 0]
    assert sends["verified"] == sends["summary"]["count"] == 2
    assert sends["value"] > figures(report, "python -c pass, wall p50")["python", 0]["value"] > 0


def test_critical() -> None:
    report = smoke("critical")
    check(report, "critical")
    if report["machine"]["cores"] < 2:
        pytest.skip("two ends that spin need two cores")
    ways = figures(report, "one way p50")
    floors = {"floor", "floor beside Python"}
    assert {name for name, _ in ways} == floors | {
        "cache line",
        "crowded",
        "record",
        "ring",
        "agentd/bytes",
        "agentd/messages",
    }
    for (name, _), way in ways.items():
        assert way["value"] > 0
        if name not in floors:
            summary = way["summary"]
            assert way["verified"] == summary["count"] > 0
            assert 0 < summary["p50_us"] <= summary["p99_us"] <= summary["p999_us"] <= summary["max_us"]
    assert {("agentd/bytes", 64), ("batched", 64), ("large", 4096)} <= set(figures(report, "rate"))
    assert ("enqueue", 64) in figures(report, "cost to the sender")
    wakes = figures(report, "wake p50")
    assert {name for name, _ in wakes} == {
        f"{beside}{name}"
        for name in ("inbox", "receive", "inbox beside a computing thread", "on_critical beside a computing thread")
        for beside in ("", "eventfd beside ")
    }
    assert all(wake["verified"] == wake["summary"]["count"] > 0 for wake in wakes.values())
    assert figures(report, "page faults, both awake")["agentd/bytes", 0]["verified"] == 2000
    idle = [f["contender"] for f in report["figures"] if f["what"].startswith("wake-ups in ")]
    assert sorted(idle) == ["idle agent in inbox()", "idle agent that sends", "idle daemon", "kernel's worker of it"]


def test_high() -> None:
    report = smoke("high")
    check(report, "high")
    if report["machine"]["cores"] < 2:
        assert report["left_out"] == [{"what": "everything", "reason": "two ends need two cores"}]
        return
    ways = {
        "cache line",
        "critical",
        "floor",
        "high",
        "floor beside Python",
        "agentd/high-bytes",
        "agentd/high-messages",
    }
    assert {name for name, _ in figures(report, "one way p50")} == ways
    costs = figures(report, "cost to the sender")
    assert set(costs) == {("critical, a record", 64), ("high, a record", 64)}
    left_out = {left["what"] for left in report["left_out"]}
    if "doorbells" not in left_out:
        cases = [f"{n} asleep, the sender {sender}" for n in (1, 32) for sender in ("slept", "ran")]
        rung = figures(report, "median awake p50")
        assert {f"{way}, {case}" for way in ("write", "engine") for case in cases} <= {name for name, _ in rung}
        assert all(figure["verified"] == figure["summary"]["count"] > 0 for figure in rung.values())
        ended = figures(report, "last awake p50")
        assert ended[f"engine, {cases[-1]}", 64]["value"] >= rung[f"engine, {cases[-1]}", 64]["value"]
    wakes = figures(report, "wake p50")
    assert {name for name, _ in wakes} == {
        f"{beside}{n}" for n in ("inbox", "receive") for beside in ("", "eventfd beside ")
    }
    sizes = (64, 64 << 10, 1 << 20)
    ours = [(name, size) for name in ("high/asyncio", "high/blocking", "socket/blocking") for size in sizes]
    trips, rates = figures(report, "round trip p50"), figures(report, "rate")
    assert sorted(trips) == sorted(rates) == ours
    assert all(trip["verified"] == trip["summary"]["count"] > 0 for trip in trips.values())
    assert all(rate["verified"] >= 6 * 40 for rate in rates.values())
    assert {"zmq/asyncio", "zmq/blocking", "zenoh/blocking", "iceoryx2/blocking"} <= left_out
    large = figures(report, "p50")
    loaned = ("64 KiB", "1 MiB", "16 MiB")
    assert {(f"loan of {size}", 0) for size in loaned} <= set(large)
    held, call = (large[f"send of a large body: {what}", 16 << 20] for what in ("loop held", "the call"))
    assert held["verified"] == call["verified"] > 0
    assert held["value"] >= call["value"] > 0


def test_low() -> None:
    report = smoke("low")
    check(report, "low")
    calls = figures(report, "in C, p50")
    assert {name for name, _ in calls} >= {"append", "append and fdatasync", "any call, beside group commit"}
    assert all(call["verified"] == call["summary"]["count"] > 0 for call in calls.values())
    assert {name for name, _ in figures(report, "in C, rate")} == {"read", "checksum"}
    mapped = figures(report, "send until stored, p50")
    assert {name for name, _ in mapped} == {"asyncio/mapped", "blocking/mapped"}
    synced = figures(report, "one sender, p50")
    assert {name for name, _ in synced} == {"asyncio/synced", "blocking/synced", "pwrite and fdatasync, in C"}
    for sends in (*mapped.values(), *synced.values()):
        assert sends["verified"] == sends["summary"]["count"] > 0
    for what in ("posted until stored", "taken by batches, unacked", "taken by batches, acked as they come"):
        flows = figures(report, what)
        assert {name for name, _ in flows} == {"asyncio/mapped", "uvloop/mapped"}
        assert all(flow["verified"] % 1000 == 0 < flow["verified"] for flow in flows.values())
    assert ("asyncio/synced", 1024) in figures(report, "64 tasks of one process")
    starts = {name: figure["value"] for (name, _), figure in figures(report, "start until it answers").items()}
    assert len(starts) == 2 and min(starts.values()) > 0
    assert {left["what"] for left in report["left_out"]} >= {"sqlite", "lmdb", "redis", "jetstream"}


def test_the_c_of_the_benchmarks_has_no_warnings(bench: Path, tmp_path: Path) -> None:
    core, flags = import_module("core"), ("-Wall", "-Wextra", "-Werror")
    build = core.build
    assert build(tmp_path / "critical", *core.RINGS, *flags) == ""
    assert build(tmp_path / "doorbells", *flags, parts=import_module("doorbells").PARTS) == ""
    assert build(tmp_path / "low", *flags, parts=import_module("low_core").PARTS) == ""


def test_a_spare_core_shares_nothing_with_the_ends(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = import_module("machine")
    siblings = {0: "0,4", 3: "2-3", 7: "3,7"}
    monkeypatch.setattr(machine, "_read", lambda path: siblings.get(int(path.split("/")[5][3:]), ""))
    for allowed, spare in (({0, 1, 3}, None), ({0, 1, 2, 3}, 1), ({0, 2, 3, 4}, 2), ({0, 3, 4, 7}, None)):
        monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid, allowed=allowed: allowed)
        assert machine.spare_core() == spare


def test_normal_collects_the_reports() -> None:
    done = subprocess.run(
        [sys.executable, BENCH / "normal.py", "--smoke", "--json", "startup"],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    together = json.loads(done.stdout)
    assert together["bench"] == "normal"
    assert together["failed"] == []
    assert together["machine"]["cores"] >= 1
    for report in together["reports"]:
        check(report, "startup")


def test_a_report_for_people_begins_with_the_machine() -> None:
    done = subprocess.run(
        [sys.executable, BENCH / "startup.py", "--smoke"], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert " cores · " in lines[0]
    assert any(line.split()[:2] == ["promise", "target"] for line in lines)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """bench/ as Python sees it when it runs a benchmark."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(BENCH)
    yield BENCH
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCH)):
            del sys.modules[name]


def test_percentiles_are_samples(bench: Path) -> None:
    sampler = import_module("sampler").Sampler(range(1000, 1_001_000, 1000))
    summary = sampler.summary()
    assert (summary.count, summary.mean_us, summary.max_us) == (1000, 500.5, 1000)
    assert (summary.p50_us, summary.p99_us, summary.p999_us) == (501, 991, 1000)
    with pytest.raises(ValueError, match="Nothing"):
        import_module("sampler").Sampler().summary()


def test_a_tally_has_the_percentiles_of_its_samples(bench: Path) -> None:
    module = import_module("sampler")
    samples = [1000 * value for value in range(1, 1001)] * 2
    tally = module.Tally((value, samples.count(value)) for value in set(samples))
    assert tally.summary() == module.Sampler(samples).summary()
    assert tally.summary(2).p50_us == tally.rank(0.5) / 2000
    with pytest.raises(ValueError, match="Nothing"):
        module.Tally().rank(0.5)


def test_a_chunk_is_dropped_when_the_floor_moved(bench: Path) -> None:
    reading = import_module("floor").Reading
    assert reading(70.0, 1.0).agrees(reading(84.0, 9.0))
    assert not reading(70.0, 1.0).agrees(reading(85.0, 1.0))
    assert [reading(ns, 1.0).regime for ns in (35, 70, 265)] == ["one core", "near", "far"]
    assert reading().agrees(reading())
    assert reading().regime == "unknown"


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [([0.4, 0.45], "holds"), ([0.4, 0.46], "mixed"), ([0.5, 0.46], "misses"), ([], "not run")],
)
def test_a_verdict_needs_every_run(bench: Path, measured: list[float], verdict: str) -> None:
    module = import_module("report")
    report = module.Report("none", import_module("machine").describe(), False, 3, {})
    report.at_most("a promise", 0.45, measured, "×", "why not")
    assert report.verdicts[0].verdict == verdict
    assert report.verdicts[0].reason == ("why not" if verdict == "not run" else "")


def test_a_ratio_stays_within_run_and_regime(bench: Path) -> None:
    table = import_module("table").Table()
    table.add(0, 64, {("ours", "near"): 1.0, ("theirs", "near"): 2.0, ("ours", "far"): 9.0})
    table.add(1, 64, {("ours", "near"): 3.0, ("theirs", "far"): 9.0})
    table.add(2, 64, {("ours", "near"): 1.0, ("theirs", "near"): 4.0})
    assert table.ratios(64, "ours", "theirs") == [0.5, 0.25]
    assert table.ratios(1024, "ours", "theirs") == []
    assert table.ratios(64, "ours", "theirs", "far") == []
    assert table.of("theirs", "near") == [2.0, 4.0]
    assert ((64, "near", "ours"), [1.0, 3.0, 1.0]) in list(table.rows())


@pytest.mark.parametrize("sequences", [[0, 2], [0, 0], [1]])
def test_the_receiving_end_insists_on_order(bench: Path, sequences: list[int]) -> None:
    ends = import_module("ends")
    checker = ends.Checker(64)
    with pytest.raises(SystemExit):
        for sequence in sequences:
            checker.taken(ends.body(sequence, 99, 64))


def test_large_bodies_come_again_in_order(bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ends = import_module("ends")
    size_bytes = ends.LARGE_BYTES
    checker, chunks = ends.Checker(size_bytes), ends.Chunks(size_bytes)
    for count in (11, 1, 20):
        for body in chunks.cut(count):
            checker.taken(body)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["received"] for answer in said] == [11, 1, 20]
    first, second, *_, last = chunks.cut(10)
    for wrong in (second, last):
        with pytest.raises(SystemExit):
            checker.taken(wrong)
    checker.taken(first)


def test_the_receiving_end_counts_a_chunk(bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ends = import_module("ends")
    checker = ends.Checker(64)
    chunks = ends.Chunks(64)
    for _ in range(2):
        for body in chunks.cut(3):
            checker.taken(body)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["received"] for answer in said] == [3, 3]


def test_system_calls_between_marks(bench: Path) -> None:
    trace = """\
11 99.8 getrusage(RUSAGE_SELF, {}) = 0
11 99.9 write(3, "", 8) = 0
11 100.0 read(3, "", 8) = 0
11 100.1 getrusage(RUSAGE_SELF, {}) = 0
12 100.2 getrusage(RUSAGE_SELF, {}) = 0
13 100.3 futex(0x1, FUTEX_WAIT <unfinished ...>
13 100.4 <... futex resumed>) = 0
12 100.5 getrusage(RUSAGE_SELF, {}) = 0
12 100.6 sendto(4, "", 8, 0, NULL, 0) = 8
11 100.7 getrusage(RUSAGE_SELF, {}) = 0
""".splitlines()
    module = import_module("quiet")
    assert module.between_marks(trace, [11, 12]) == {"futex": 1}
    with pytest.raises(RuntimeError, match="marks"):
        module.between_marks(trace, [11, 13])


def test_wake_ups_in_a_trace(bench: Path) -> None:
    trace = """\
27123 100.100000 epoll_pwait(6, [], 1024, 200, NULL, 8) = 0 <0.200111>
27123 100.300300 epoll_pwait(6, [], 1024, 700, NULL, 8) = 0 <0.700222>
27123 101.000700 epoll_pwait(6, [{events=EPOLLIN, data={u32=9}}], 1024, -1, NULL, 8) = 1 <0.300000>
27123 101.500000 epoll_wait(6,  <unfinished ...>
27124 101.600000 write(1, "epoll_wait", 10) = 10 <0.000010>
27123 102.000000 <... epoll_wait resumed> [], 1024, -1) = 0 <0.500000>
27123 103.000000 epoll_pwait(6, [], 1024, 2500, NULL, 8) = 0 <2.500000>
27123 105.600000 epoll_pwait(6,  <detached ...>
"""
    assert import_module("footprint").count_returns(trace, 100.5, 105.0) == 3
