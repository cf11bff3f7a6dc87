"""Configuration: file < environment < flag; a wrong value is refused with its place, its key and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentd.host.arguments import parse_arguments
from agentd.host.config import KEYS, Config, env_name, load_config
from agentd.wire.errors import ConfigError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def refused(
    path: Path | None = None, environ: dict[str, str] | None = None, settings: list[str] | None = None
) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        load_config(path, environ or {}, settings or [])
    return error.value


def test_without_anything_all_is_default(path: Path) -> None:
    config, origins = load_config(path, {"HOME": "/nowhere"})
    assert config == Config()
    assert origins == {}


def test_the_file_is_overruled_by_the_environment_and_that_by_a_flag(path: Path) -> None:
    path.write_text("[inbox]\nmax_messages = 1\nmax_bytes = 1024\n[message]\nmax_hops = 4\n[log]\nlevel = 'debug'\n")
    environ = {"AGENTD_INBOX_MAX_MESSAGES": "2", "AGENTD_INBOX_MAX_BYTES": "2048"}
    config, origins = load_config(path, environ, ["inbox.max_messages=3"])
    assert (config.inbox.max_messages, config.inbox.max_bytes, config.message.max_hops) == (3, 2048, 4)
    assert config.log.level == "debug"
    assert origins == {
        "inbox.max_messages": "--set",
        "inbox.max_bytes": "AGENTD_INBOX_MAX_BYTES",
        "message.max_hops": str(path),
        "log.level": str(path),
    }


def test_the_last_of_equal_flags_wins() -> None:
    config, _ = load_config(None, {}, ["trace.keep_s=1", "trace.keep_s=2.5"])
    assert config.trace.keep_s == 2.5


def test_every_setting_has_an_environment_variable_and_its_default_is_valid() -> None:
    environ = {}
    for key in KEYS:
        section, name = key.split(".")
        environ[env_name(key)] = str(getattr(getattr(Config(), section), name))
    config, origins = load_config(None, environ)
    assert config == Config()
    assert len(set(environ)) == len(KEYS) == len(origins)


@pytest.mark.parametrize("said", ["2,3", "[2, 3]", "2 3"])
def test_a_list_can_be_said_in_the_environment(said: str) -> None:
    assert load_config(None, {"AGENTD_HIGH_SQPOLL_CORES": said})[0].high.sqpoll_cores == [2, 3]
    with pytest.raises(ConfigError, match=r"AGENTD_HIGH_SQPOLL_CORES: high\.sqpoll_cores"):
        load_config(None, {"AGENTD_HIGH_SQPOLL_CORES": "two"})


def test_a_bad_value_in_the_file_names_file_key_and_what_was_expected(path: Path) -> None:
    for written, expected in [
        ('max_messages = "many"', "expected int"),
        ("max_messages = 0", "expected int >= 1"),
        ("max_messages = 1.5", "expected int"),
        ("max_messages = true", "expected int"),
        ("max_bytes = 1", "expected int >= 1024"),
    ]:
        path.write_text(f"[inbox]\n{written}\n")
        error = refused(path)
        assert str(path) in error.message
        assert f"inbox.{written.split()[0]}" in error.message
        assert expected in error.message
        assert error.exit_status == 78


def test_a_bad_value_in_the_environment_names_the_variable() -> None:
    error = refused(environ={"AGENTD_TRACE_KEEP_S": "soon"})
    assert error.message.startswith("AGENTD_TRACE_KEEP_S: trace.keep_s = 'soon': expected float")
    assert error.hint == "Default: 600.0."


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e300", ""])
def test_seconds_are_finite_and_not_negative(value: str) -> None:
    assert "trace.keep_s" in refused(settings=[f"trace.keep_s={value}"]).message


def test_what_is_done_again_and_again_takes_a_rest_between() -> None:
    assert "expected float >= 1" in refused(settings=["agents.forget_after_s=0"]).message


def test_a_choice_names_what_there_is_to_choose() -> None:
    assert "log.level = 'loud'" in refused(settings=["log.level=loud"]).message


@pytest.mark.parametrize("written", ["[inbox]\nmax_mesages = 1", "[inbx]\nmax_messages = 1"])
def test_an_unknown_key_in_the_file_is_refused_with_the_nearest(path: Path, written: str) -> None:
    path.write_text(written)
    error = refused(path)
    assert str(path) in error.message and "there is no setting" in error.message
    assert error.hint == "Did you mean inbox.max_messages?"


def test_an_unknown_section_or_a_value_outside_of_one_is_refused(path: Path) -> None:
    for written in ("[zzz]\nqqq = 1", "qqq = 1"):
        path.write_text(written)
        assert "inbox.max_messages" in refused(path).hint  # all of them, as none is near


def test_an_unknown_key_in_a_flag_is_refused_with_the_nearest() -> None:
    error = refused(settings=["inbox.max_message=1"])
    assert error.message == "--set: there is no setting 'inbox.max_message'"
    assert error.hint == "Did you mean inbox.max_messages?"
    assert "expected KEY=VALUE" in refused(settings=["inbox.max_messages"]).message


def test_a_file_that_is_no_toml_or_no_text_or_no_file_is_refused_by_name(path: Path) -> None:
    path.write_text("[inbox\n")
    assert f"{path} is not TOML" in refused(path).message
    path.write_bytes(b"\xff\xfe")
    assert f"{path} is not TOML" in refused(path).message
    assert f"{path.parent} can't be read" in refused(path.parent).message


def test_only_a_file_that_was_named_must_exist(path: Path) -> None:
    load_config(path, {})
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(path, {}, required=True)
    with pytest.raises(ConfigError, match="does not exist"):
        parse_arguments(["--config", str(path)], {}, 1000)
    with pytest.raises(ConfigError, match="does not exist"):
        parse_arguments([], {"AGENTD_CONFIG": str(path)}, 1000)


def test_directories_come_from_flags_then_the_environment(tmp_path: Path) -> None:
    environ = {"AGENTD_RUNTIME_DIR": "/run/env", "AGENTD_STATE_DIR": "/state/env", "HOME": str(tmp_path)}
    given = parse_arguments([], environ, 1000)
    assert (given.runtime_dir, given.socket) == (Path("/run/env"), Path("/run/env/agentd.sock"))
    assert given.state_dir == Path("/state/env")
    given = parse_arguments(["--runtime-dir", "/run/flag", "--state-dir", "/state/flag"], environ, 1000)
    assert (given.socket, given.state_dir) == (Path("/run/flag/agentd.sock"), Path("/state/flag"))


def test_a_socket_path_that_the_kernel_can_not_bind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="longer than 107 bytes"):
        parse_arguments(["--runtime-dir", "/" + "x" * 100], {"HOME": str(tmp_path)}, 1000)
