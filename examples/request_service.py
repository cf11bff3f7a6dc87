"""A service that answers questions, and a caller that meets everything that can come of asking. Blocking client.

    python examples/request_service.py serve calculator      (until Ctrl-C)
    python examples/request_service.py ask calculator '6 * 7'

The service rejects what it can't do, so that its caller is told and nobody tries again. The caller tells apart an
answer, a refusal, a service that is not there (at once, not after a time-out) and one that is too slow.
"""

from __future__ import annotations

import ast
import operator
import sys
from collections.abc import Callable

from agentd_client import errors
from agentd_client.blocking import connect

OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def calculated(text: str) -> float:
    """The value of `6 * (3 + 4)`; ValueError for what is no such thing."""

    def value(node: ast.expr) -> float:
        match node:
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return OPERATORS[type(op)](value(left), value(right))
        raise ValueError(f"{ast.unparse(node)!r} is nothing that can be calculated")

    try:
        return value(ast.parse(text, mode="eval").body)
    except (SyntaxError, ZeroDivisionError) as error:
        raise ValueError(str(error)) from None


def serve(name: str) -> None:
    """Answers for ever; a restart of the daemon is ridden out."""
    with connect(name) as me:
        print(f"{name}: ready", flush=True)
        for message in me.inbox():
            try:
                answer = calculated(str(message.value))
            except ValueError as error:
                message.reject(str(error))
                continue
            message.reply(answer)


def ask(name: str, question: str) -> int:
    """Prints the answer; what happened instead as an exit code."""
    with connect("caller", take=False) as me:
        try:
            print(me.request(name, question, timeout=5).value)
        except errors.Rejected as error:
            print(f"refused: {error.message}", file=sys.stderr)
            return 1
        except errors.NoResponder as error:
            print(f"nobody answers: {error.message}", file=sys.stderr)
            return 75
        except errors.Timeout as error:
            print(f"too slow: {error.message}", file=sys.stderr)
            return 75
    return 0


def main(words: list[str]) -> int:
    """`serve NAME` or `ask NAME QUESTION`."""
    match words:
        case ["serve", name]:
            serve(name)
            return 0
        case ["ask", name, question]:
            return ask(name, question)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except errors.Unreachable as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
