"""Which cores are fast, by what each kind of machine says in /sys."""

from __future__ import annotations

from pathlib import Path

from agentd.host.topology import clock_source, read_topology


def machine(root: Path, online: str, files: dict[str, str]) -> dict[str, str]:
    """A /sys with these files below devices/."""
    for name, text in {"system/cpu/online": online, **files}.items():
        path = root / "devices" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return {"AGENTD_SYSFS": str(root)}


def siblings(pairs: dict[int, str]) -> dict[str, str]:
    return {f"system/cpu/cpu{cpu}/topology/thread_siblings_list": text for cpu, text in pairs.items()}


def test_intel_hybrid_with_threads(tmp_path: Path) -> None:
    threads = siblings({0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3", 4: "4", 5: "5"})
    environ = machine(tmp_path, "0-5", {"cpu_core/cpus": "0-3", "cpu_atom/cpus": "4-5", **threads})
    found = read_topology(environ, set(range(6)))
    assert (found.kind, found.source, found.performance) == ("hybrid", "cpu_core", (0, 2))


def test_arm_by_capacity(tmp_path: Path) -> None:
    speeds = {f"system/cpu/cpu{cpu}/cpu_capacity": "1024" if cpu >= 4 else "446" for cpu in range(6)}
    found = read_topology(machine(tmp_path, "0-5", speeds), set(range(6)))
    assert (found.kind, found.source, found.performance) == ("hybrid", "cpu_capacity", (4, 5))


def test_amd_preferred_cores_are_no_other_kind(tmp_path: Path) -> None:
    speeds = {f"system/cpu/cpu{cpu}/acpi_cppc/highest_perf": str(236 - 10 * cpu) for cpu in range(4)}
    found = read_topology(machine(tmp_path, "0-3", speeds), set(range(4)))
    assert (found.kind, found.performance) == ("uniform", (0, 1, 2, 3))


def test_amd_with_dense_cores(tmp_path: Path) -> None:
    speeds = {f"system/cpu/cpu{cpu}/acpi_cppc/highest_perf": "196" if cpu < 2 else "135" for cpu in range(4)}
    found = read_topology(machine(tmp_path, "0-3", speeds), set(range(4)))
    assert (found.kind, found.performance) == ("hybrid", (0, 1))


def test_uniform_with_threads(tmp_path: Path) -> None:
    threads = siblings({0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"})
    found = read_topology(machine(tmp_path, "0-3", threads), set(range(4)))
    assert (found.kind, found.performance, found.source) == ("uniform", (0, 1), "nothing tells them apart")


def test_offline_and_forbidden_cores_are_not_used(tmp_path: Path) -> None:
    environ = machine(tmp_path, "0,2-3", {"cpu_core/cpus": "0-2"})
    found = read_topology(environ, {2, 3})
    assert (found.online, found.allowed, found.performance) == ((0, 2, 3), (2, 3), (2,))


def test_no_fast_core_is_allowed(tmp_path: Path) -> None:
    found = read_topology(machine(tmp_path, "0-3", {"cpu_core/cpus": "0-1"}), {2, 3})
    assert (found.kind, found.performance) == ("hybrid", ())


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    found = read_topology({"AGENTD_SYSFS": str(tmp_path)})
    assert found.allowed == found.performance != ()
    assert clock_source({"AGENTD_SYSFS": str(tmp_path)}) == ""


def test_this_machine() -> None:
    found = read_topology({})
    assert set(found.performance) <= set(found.allowed) <= set(found.online)
