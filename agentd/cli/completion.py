"""`agentctl completion`: a script for the shell, made of the verbs as they are.

click's own scripts start agentctl at each TAB, which takes longer than anybody waits. These start a bare Python with
nothing imported (complete.py), and bring all that does not change along as a table.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from typing import Final

import click

from agentd.cli import show
from agentd.cli.call import Call, argument, verb
from agentd.cli.complete import FILES, TABLE

#: What arguments and options take, by their names.
_TAKES: Final = {
    "to": "@agent",
    "name": "@agent",
    "names": "@agent",
    "as_name": "@agent",
    "topic": "@topic",
    "pattern": "@pattern",
    "id": "@mail",
    "ids": "@mail",
    "re": "@message",
    "into": "@agent",
    "socket": "@files",
    "file": "@files",
    "directory": "@files",
    "save": "@files",
    "body": "@body",
    "command": "@files",
}
#: Where the verb says more than the name.
_TAKES_OF: Final = {("reply", "id"): "@message", ("trace", "id"): "@message", ("history", "id"): "@message"}

_BASH: Final = """\
# agentctl completion for bash: eval "$(agentctl completion bash)" in ~/.bashrc
_agentctl_table={table}
_agentctl() {{
    local IFS=$'\\n' typed=${{COMP_LINE:0:COMP_POINT}}
    COMPREPLY=($({variable}=$_agentctl_table {command} bash "$COMP_WORDBREAKS" "$typed" 2>/dev/null))
    if [ $? = {files} ]; then compopt -o default; COMPREPLY=(); fi
}}
complete -o nosort -F _agentctl agentctl
"""
_ZSH: Final = """\
#compdef agentctl
# agentctl completion for zsh: eval "$(agentctl completion zsh)" in ~/.zshrc, after compinit
_agentctl_table={table}
_agentctl() {{
    local -a found
    local out
    out=$({variable}=$_agentctl_table {command} zsh "${{(@)words[2,CURRENT]}}" 2>/dev/null)
    if [ $? = {files} ]; then _files; return; fi
    found=(${{(f)out}})
    _describe -V agentctl found
}}
compdef _agentctl agentctl
"""
_FISH: Final = """\
# agentctl completion for fish: agentctl completion fish > ~/.config/fish/completions/agentctl.fish
set -g _agentctl_table {table}
function __agentctl_complete
    set -l words (commandline -opc) (commandline -ct)
    {variable}="$_agentctl_table" {command} fish $words[2..] 2>/dev/null
    if test $status = {files}
        __fish_complete_path (commandline -ct)
    end
end
complete -c agentctl -f -k -a '(__agentctl_complete)'
"""
_SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


@verb('agentctl completion bash\neval "$(agentctl completion bash)"    # in ~/.bashrc')
@argument("shell", type=click.Choice(list(_SCRIPTS)))
def completion(call: Call, shell: str) -> int:
    """Print a script that lets your shell complete verbs, options, agents, topics and message ids.

    Names and ids come from the daemon while you type; where it does not answer at once, the rest is completed all the
    same. Print it anew after an update.
    """
    run = " ".join(_quoted(shell, word) for word in command())
    text = _SCRIPTS[shell].format(table=_quoted(shell, table()), command=run, files=FILES, variable=TABLE)
    if call.as_json:
        show.emit({"shell": shell, "script": text})
    else:
        show.write(text.encode())
    return 0


def command() -> list[str]:
    """What the shell runs: this Python, bare, and this installation."""
    import agentd

    root = os.path.dirname(next(iter(agentd.__path__)))
    code = f"import sys; sys.path[:0] = [{root!r}]; from agentd.cli.complete import main; main()"
    return [sys.executable, "-I", "-S", "-c", code]


def _quoted(shell: str, text: str) -> str:
    if shell == "fish":  # there, a backslash means something between quotes
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return shlex.quote(text)


def table() -> str:
    """All that does not change, as complete.py reads it."""
    from agentd.cli.main import root

    return "\n".join("\t".join(row) for row in _rows(root, ()))


def _rows(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    ctx = click.Context(command)
    here = " ".join(path)
    place = 0
    for param in command.get_params(ctx):
        takes = _takes(param, path)
        if isinstance(param, click.Option):
            about = (param.help or "").split("; ")[0]
            yield from ((here, "option", name, takes, about) for name in param.opts if name.startswith("--"))
        else:
            place += 1
            yield here, "word", "*" if param.nargs < 0 else str(place), takes, ""
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            assert child is not None
            yield here, "verb", name, "", child.get_short_help_str(limit=60)
            yield from _rows(child, (*path, name))


def _takes(param: click.Parameter, path: tuple[str, ...]) -> str:
    if isinstance(param, click.Option) and param.is_flag:
        return ""
    if isinstance(param.type, click.Choice):
        return " ".join(map(str, param.type.choices))
    name = param.name or ""
    if path[:1] == ("dead",) and name in ("id", "ids"):
        return "@dead"
    if path == ("schema", "show"):
        from agentd.wire.outputs import OUTPUTS

        return " ".join(dict.fromkeys(word for output in OUTPUTS for word in output.split()))
    return _TAKES_OF.get((" ".join(path), name)) or _TAKES.get(name) or "?"
