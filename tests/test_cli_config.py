"""`agentctl config`: what a daemon would be started with, and whether it would start. No daemon here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from commands import Agentctl

from agentd.host.config import KEYS, Config, default_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agentd.toml"


@pytest.fixture
def env(tmp_path: Path, path: Path) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("AGENTD_")}
    return {**others, "AGENTD_RUNTIME_DIR": str(tmp_path), "AGENTD_CONFIG": str(path)}


@pytest.fixture
def agentctl(tmp_path: Path, env: dict[str, str]) -> Agentctl:
    return Agentctl(env, tmp_path)


def test_every_setting_is_shown_with_its_value_its_default_and_its_origin(
    agentctl: Agentctl, path: Path, env: dict[str, str]
) -> None:
    path.write_text("[inbox]\nmax_messages = 7\n[log]\nlevel = 'debug'\n")
    env["AGENTD_LOG_LEVEL"] = "error"
    rows = {row["key"]: row for row in agentctl("config", "show", "--json", status=0).json["settings"]}
    assert list(rows) == list(KEYS)
    assert rows["inbox.max_messages"] == {
        "key": "inbox.max_messages",
        "value": 7,
        "default": Config().inbox.max_messages,
        "origin": str(path),
    }
    assert (rows["log.level"]["value"], rows["log.level"]["origin"]) == ("error", "AGENTD_LOG_LEVEL")
    assert rows["dead.max_bytes"]["origin"] == "default"
    assert all(row["default"] == default_of(key) for key, row in rows.items())


def test_the_text_names_origins_when_asked(agentctl: Agentctl, path: Path) -> None:
    path.write_text("[inbox]\nmax_messages = 7\n")
    plain = agentctl("config", status=0).out
    assert len(plain.splitlines()) == len(KEYS) + 1
    assert str(path) not in plain
    lines = [line.split() for line in agentctl("config", "show", "--origin", status=0).out.splitlines()]
    assert ["inbox.max_messages", "7", str(path)] in lines
    assert ["log.level", "info", "default"] in lines


def test_a_file_that_is_fine_is_said_to_be(agentctl: Agentctl, path: Path) -> None:
    path.write_text("[inbox]\nmax_messages = 7\n")
    assert f"{path} is fine: 1 of {len(KEYS)} settings" in agentctl("config", "check", status=0).out
    answer = agentctl("config", "check", str(path), "--json", status=0).json
    assert answer == {"ok": True, "file": str(path), "exists": True, "set": ["inbox.max_messages"]}


def test_without_a_file_the_defaults_are_fine(agentctl: Agentctl, tmp_path: Path, env: dict[str, str]) -> None:
    del env["AGENTD_CONFIG"]
    env["XDG_CONFIG_HOME"] = str(tmp_path / "none")
    assert "does not exist, so the defaults hold" in agentctl("config", "check", status=0).out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[inbox]\nmax_mesages = 7\n", "Did you mean inbox.max_messages?"),
        ("[inbox]\nmax_messages = 'many'\n", "inbox.max_messages = 'many'"),
        ("[inbox\n", "is not TOML"),
        (None, "does not exist"),
    ],
)
def test_what_would_not_start_is_refused_with_its_place(
    agentctl: Agentctl, path: Path, text: str | None, said: str
) -> None:
    if text is not None:
        path.write_text(text)
    for verb in ("check", "show"):
        done = agentctl("config", verb, status=78)
        assert said in done.err
        assert str(path) in done.err
        assert done.out == ""


def test_a_variable_that_the_daemon_would_pass_over_is_found(
    agentctl: Agentctl, path: Path, env: dict[str, str]
) -> None:
    path.write_text("")
    env["AGENTD_INBOX_MAX_MESAGES"] = "7"
    done = agentctl("config", "check", status=78)
    assert "AGENTD_INBOX_MAX_MESAGES" in done.err
    assert "Did you mean AGENTD_INBOX_MAX_MESSAGES?" in done.err
