"""`agentctl completion`: what real shells offer at TAB, and that they never wait for the daemon."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import signal
import subprocess
import time

import msgspec
import pytest
from commands import Agentctl
from daemons import PATIENCE_S, Daemon, wait_until
from test_cli_help import TREE

from agentd.cli import complete, quick
from agentd.cli.completion import command, table
from agentd.wire import messages as wire
from agentd.wire.frames import MAGIC, FrameWriter
from agentd.wire.outputs import OUTPUTS

STATIC = complete.read(table())


@pytest.fixture
def mail(agentctl: Agentctl) -> str:
    """A message for builder; its id."""
    sent = agentctl("send", "builder", "compile\nit: \x1b[31mnow", "--allow-absent", "--json", name="planner", status=0)
    agentctl("publish", "task:created", "x", name="planner", status=0)
    return str(sent.json["id"])


class Shell:
    """A shell with agentctl and its completions."""

    def __init__(self, kind: str, agentctl: Agentctl) -> None:
        found = shutil.which(kind)
        if found is None:
            pytest.skip(f"{kind} is not installed: apt-get install {kind}")
        self.kind = kind
        self.env = {**agentctl.env, "HOME": str(agentctl.directory), "TERM": "dumb", "AGENTD_AGENT": "builder"}
        self.directory = agentctl.directory
        self.script = agentctl.directory / f"completion.{kind}"
        self.script.write_text(agentctl("completion", kind, status=0).out)
        self.path = found

    def run(self, code: str) -> str:
        """What some code of this shell prints."""
        command = [self.path, "--norc"] if self.kind == "bash" else [self.path]
        done = subprocess.run(
            [*command, "-c", code], env=self.env, cwd=self.directory, capture_output=True, timeout=PATIENCE_S
        )
        assert not done.stderr, done.stderr
        return done.stdout.decode()

    def offers(self, typed: str) -> list[str]:
        """What TAB would offer here; of fish with its descriptions."""
        if self.kind == "bash":
            # What readline does: it looks the function up, sets these and calls it.
            code = f"""
                source {self.script}
                [[ $(complete -p agentctl) == *"-F _agentctl"* ]] || exit 1
                compopt() {{ local IFS=" "; echo "compopt $*"; }}
                COMP_LINE={shlex.quote(typed)}
                COMP_POINT=${{#COMP_LINE}}
                _agentctl
                printf '%s\\n' "${{COMPREPLY[@]}}"
            """
            out = self.run(code)
        else:
            out = self.run(f"source {self.script}; complete -C '{typed}'")
        return [line for line in out.splitlines() if line]


def eventually(shell: Shell, typed: str, offered: list[str]) -> None:
    """On a busy machine the daemon may answer too late for a completion, which is then empty."""
    wait_until(lambda: shell.offers(typed) == offered, f"for {offered}, not {shell.offers(typed)}")


class TestBash:
    @pytest.fixture
    def bash(self, agentctl: Agentctl) -> Shell:
        return Shell("bash", agentctl)

    def test_verbs_options_and_fixed_values(self, bash: Shell) -> None:
        assert bash.offers("agentctl se") == ["send", "serve"]
        assert bash.offers("agentctl dead r") == ["requeue"]
        assert bash.offers("agentctl send x y --pri") == ["--priority"]
        assert bash.offers("agentctl send x y --priority ") == ["critical", "high", "normal", "low", "batch"]
        assert bash.offers("agentctl send x y --wait=d") == ["delivered"]  # bash keeps what is before the =
        assert bash.offers("agentctl --json completion f") == ["fish"]
        assert "--hold" in bash.offers("agentctl recv --")

    def test_agents_topics_and_ids(self, bash: Shell, agentctl: Agentctl, mail: str) -> None:
        eventually(bash, "agentctl send b", ["builder"])
        eventually(bash, "agentctl inbox --as pl", ["planner"])
        eventually(bash, "agentctl publish task:cr", ["created"])  # bash keeps what is before the :
        eventually(bash, "agentctl ack ", [mail[:4]])
        eventually(bash, f"agentctl ack {mail[:6]}", [mail[:6]])
        eventually(bash, f"agentctl send x y --re {mail[:2]}", [mail[:4]])
        agentctl("recv", "--hold", "1m", name="builder", status=0)
        agentctl("reject", mail, name="builder", status=0)
        eventually(bash, "agentctl dead requeue ", [mail[:4]])

    def test_files_are_left_to_bash(self, bash: Shell) -> None:
        assert bash.offers("agentctl config check ") == ["compopt -o default"]
        assert bash.offers("agentctl --socket ") == ["compopt -o default"]

    def test_a_daemon_that_does_not_answer_costs_only_its_words(
        self, bash: Shell, agentctl: Agentctl, daemon: Daemon, mail: str
    ) -> None:
        eventually(bash, "agentctl send b", ["builder"])
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            assert bash.offers("agentctl send b") == []
            assert bash.offers("agentctl se") == ["send", "serve"]
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        eventually(bash, "agentctl send b", ["builder"])
        daemon.stop()
        assert bash.offers("agentctl send b") == []
        daemon.start()

    def test_at_a_prompt(self, bash: Shell, agentctl: Agentctl, mail: str) -> None:
        with Prompt([bash.path, "--norc", "--noprofile", "-i"], bash) as prompt:
            prompt.type(f"source {bash.script}; bind 'set enable-bracketed-paste off'; echo rea''dy\n")
            prompt.until("ready")
            prompt.tab("agentctl send bui", "agentctl send builder ")


class TestZsh:
    def test_at_a_prompt(self, agentctl: Agentctl, mail: str) -> None:
        zsh = Shell("zsh", agentctl)
        with Prompt([zsh.path, "-f", "-i"], zsh) as prompt:
            prompt.type(f"unsetopt zle_bracketed_paste; autoload -U compinit; compinit -D -u; source {zsh.script}\n")
            prompt.type("echo rea''dy\n")
            prompt.until("ready")
            prompt.tab("agentctl send bui", "agentctl send builder")
            prompt.tab("agentctl ack ", f"agentctl ack {mail[:4]}")
            prompt.type("\x15agentctl dead \t")
            prompt.until("Put dead letters back")  # what the verb does
            prompt.type("\x15agentctl send \t")
            prompt.until("gone, 1 waiting")


class TestFish:
    def test_words_and_what_they_are(self, agentctl: Agentctl, mail: str) -> None:
        fish = Shell("fish", agentctl)
        assert [line.split("\t")[0] for line in fish.offers("agentctl se")] == ["send", "serve"]
        eventually(fish, "agentctl send b", ["builder\tgone, 1 waiting"])
        eventually(fish, "agentctl ack ", [f"{mail[:4]}\tplanner: compile it: ?[31mnow"])  # no escape gets through
        assert "requeue\tPut dead letters back" in "".join(fish.offers("agentctl dead r"))


class Prompt:
    """An interactive shell on a terminal."""

    def __init__(self, command: list[str], shell: Shell) -> None:
        self._ours, theirs = pty.openpty()
        env = {**shell.env, "PS1": "> ", "PROMPT": "> ", "TERM": "vt100", "COLUMNS": "200", "LINES": "50"}
        self._process = subprocess.Popen(
            command, env=env, cwd=shell.directory, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self._seen = ""

    def __enter__(self) -> Prompt:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def until(self, text: str, patience_s: float = PATIENCE_S) -> bool:
        """Read on until `text` is seen."""
        deadline = time.monotonic() + patience_s
        while text not in self._seen:
            ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                if patience_s < PATIENCE_S:
                    return False
                pytest.fail(f"{text!r} is not in {self._seen!r}")
            self._seen += os.read(self._ours, 65536).decode(errors="replace")
        return True

    def tab(self, typed: str, line: str) -> None:
        """TAB makes this line of what is typed. Pressed again where the daemon was too busy."""
        self._seen = ""
        self.type(f"\x15{typed}")  # the line before is deleted
        self.until(typed)
        added = line.removeprefix(typed)
        self._seen = ""
        deadline = time.monotonic() + PATIENCE_S
        self.type("\t")
        while not self.until(added, 1.0):
            assert time.monotonic() < deadline, self._seen
            self.type("\t")


def test_every_verb_and_option_is_in_the_table() -> None:
    for path, one in TREE:
        here = " ".join(path)
        names = {name for param in one.params for name in getattr(param, "opts", ()) if name.startswith("--")}
        assert names <= set(STATIC.options.get(here, {})), here
        if path:
            assert path[-1] in dict(STATIC.verbs[" ".join(path[:-1])])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("agentctl ", [""]),
        ("agentctl send b", ["send", "b"]),
        ("agentctl send 'two words' \"a'b\" c\\ d", ["send", "two words", "a'b", "c d"]),
        ("agentctl send ''", ["send", ""]),
        ("agentctl publish task:a --header a=b", ["publish", "task:a", "--header", "a=b"]),
        ("agentctl send 'open quo", ["send", "open quo"]),
    ],
)
def test_a_line_is_split_as_the_shell_does(line: str, words: list[str]) -> None:
    assert complete.split(line) == words


@pytest.mark.parametrize(
    ("words", "some"),
    [
        (["send", "--priority", "h"], ["high"]),
        (["--as", "me", "dead", ""], ["list", "show"]),
        (["schema", "show", "dead", "re"], ["requeue"]),
        (["config", "check", ""], None),
        (["serve", "me", "--", "--pri"], None),
        (["send", "x", ""], []),
        (["--socket=/nowhere", "send", ""], []),
    ],
)
def test_what_fits(words: list[str], some: list[str] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTD_SOCKET", "/nowhere")
    found = complete.complete(STATIC, words)
    if some is None:
        assert found is None
    else:
        assert found is not None and set(some) <= {word for word, _ in found} and bool(some) == bool(found)


def test_no_word_is_a_verb_of_itself_alone() -> None:
    assert complete.complete(complete.Table(), ["send", ""]) == []


def test_the_small_msgpack_is_msgpack() -> None:
    frames = FrameWriter()
    said = [wire.Hello(wire.VERSION, "agentctl"), wire.Notice(1, "bü" * 40), wire.Completion(1, wire.Word.AGENT, "x")]
    packed = quick.pack([[1, 1, "agentctl"], [45, 1, "bü" * 40], [46, 1, "agent", "x", None]])
    assert msgspec.msgpack.decode(packed, type=list[wire.ClientMessage]) == said
    words = [wire.WordView("ü" * n, "about") for n in (0, 31, 32, 300, 70_000)]
    for answer in (
        wire.CompletionView(1, words[:4] * 5),
        wire.CompletionView(1 << 40, [words[4]] * 20),
        wire.NoticeView(300, "builder", 70_000, 1 << 33, [wire.NoticeRow("a", 200, wire.Priority.LOW)]),
        wire.Error(1, "code", "message", retry_after=1.5),
        wire.Welcome(1, "0.1", ["a"], "boot", 16 << 20),
    ):
        frames.push(answer)
        data = msgspec.msgpack.encode(answer)
        expected = [None if isinstance(part, float) else part for part in msgspec.msgpack.decode(data)]
        assert quick.unpack(data) == expected
    for bad in (b"\xc1", b"\xc0\xc0", b"\x80"):
        with pytest.raises(ValueError, match=r"^(0x|more)"):
            quick.unpack(bad)


def test_its_numbers_are_those_of_the_wire() -> None:
    tags = {kind: kind.__struct_config__.tag for kind in (wire.Hello, wire.Leave, wire.Notice, wire.Completion)}
    assert list(tags.values()) == [quick.HELLO, quick.LEAVE, quick.NOTICE, quick.COMPLETION]
    answers = [kind.__struct_config__.tag for kind in (wire.Error, wire.NoticeView, wire.CompletionView)]
    assert answers == [quick.ERROR, quick.NOTICE_VIEW, quick.COMPLETION_VIEW]
    assert (quick.MAGIC, quick.VERSION) == (MAGIC, wire.VERSION)
    assert "completion" in OUTPUTS


def test_the_helper_imports_next_to_nothing(agentctl: Agentctl, mail: str) -> None:
    python, *rest = command()
    done = subprocess.run(
        [python, "-X", "importtime", *rest, "fish", "send", "b"],
        env={**agentctl.env, complete.TABLE: table()},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "agentd.cli.quick" in names
    assert not names & {"re", "typing", "json", "socket", "collections", "enum", "site", "click", "msgspec"}, names
