"""The table of ways: it has one answer for every case, clients/vectors/choice.json says the same, and so do the
documents. What the daemon does by it is in test_conformance_choice.py and test_direct_choice.py."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from protocol_tables import DOCUMENTS, filled
from test_vectors import VECTORS, load, vectors

from agentd.wire import choice
from agentd.wire.choice import TABLE, Case, Recipient, Row, Size, decide, size_of
from agentd.wire.errors import BY_CODE, BadRequest
from agentd.wire.messages import Options, Priority, Route
from agentd_client import _options

#: This version has no others to open.
OPEN = {Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW}
LIMITS = ("inline_bytes", "pool_bytes", "max_body_bytes")
LATE = ("attached", "recipient", "size")


def every_case() -> Iterator[Case]:
    """Whatever there can be, with all looked at."""
    verbs = ("send", "request", "reply", "publish")
    fields = (verbs, Priority, (False, True), (None, *Route), (True, False), (False, True), Recipient, Size)
    for verb, priority, durable, route, is_open, attached, recipient, size in itertools.product(*fields):
        if not is_open or priority in OPEN:
            yield Case(verb, priority, durable, route, is_open, attached, recipient, size)


def case_of(vector: dict[str, Any]) -> Case:
    given = dict(vector["case"])
    size = given.pop("size_bytes", None)
    limits = [given.pop(name, 0) for name in LIMITS]
    return Case(
        given["verb"],
        Priority(given["priority"]),
        given["durable"],
        given["route"] and Route(given["route"]),
        given["open"],
        given["attached"],
        given["recipient"] and Recipient(given["recipient"]),
        None if size is None else size_of(size, *limits),
    )


def answer_of(row: Row | None, priority: str) -> dict[str, str] | None:
    if row is None:
        return None
    return {"row": row.name} | ({"lane": priority, "route": row.route} if row.route else {"code": row.code})


def test_every_case_has_its_row_and_every_row_a_case() -> None:
    found = {row.name for case in every_case() if (row := decide(case)) is not None}
    assert found == {row.name for row in TABLE}
    with pytest.raises(LookupError):
        decide(Case("send", Priority.BATCH, False, None, True, False, Recipient.RING, Size.INLINE))


def test_what_is_decided_early_stays_so() -> None:
    """Whoever has not looked at everything yet never says what somebody who has would not."""
    early: dict[Case, set[str]] = {}
    for case in every_case():
        full = decide(case)
        assert full is not None
        for unseen in itertools.chain.from_iterable(itertools.combinations(LATE, n) for n in (1, 2, 3)):
            partial = Case(*(None if name in unseen else value for name, value in case._asdict().items()))  # type: ignore[arg-type]
            row = decide(partial)
            assert row in (None, full), partial
            early.setdefault(partial, set()).add(full.name)
    for partial, rows in early.items():
        assert decide(partial) is not None or len(rows) > 1 or partial.size is None or partial.recipient is None


def test_a_row_has_a_route_or_is_an_error_and_fills_its_words() -> None:
    words = ("lane", "why", "route", "to", "sender", "size_bytes", "limit_bytes")
    for row in TABLE:
        assert bool(row.route) != bool(row.code) == (not row.unless), row.name
        assert set(re.findall(r"{(\w+)}", row.reason + row.hint + row.unless)) <= set(words)
        if row.code:
            error = choice.refusal(row.name, **dict.fromkeys(words, "x"))
            assert type(error) is BY_CODE[row.code] and error.row == row.name and "{" not in str(error)


def test_a_sender_hopes_for_no_more_than_the_table_gives() -> None:
    for case in every_case():
        row = decide(case)
        assert row is not None
        may = choice.may_go_direct(case.verb, case.priority, case.durable, case.route)
        assert may or row.route is not Route.DIRECT, case
        options = Options(case.priority, durable=case.durable or None, route=case.route)
        assert _options.may_go_direct(case.verb, options) == may, case
    assert choice.may_go_direct("send", Priority.CRITICAL, False, None)
    assert choice.may_go_direct("request", Priority.HIGH, False, Route.DIRECT)
    assert not choice.may_go_direct("send", Priority.CRITICAL, False, Route.RELAYED)
    assert not choice.may_go_direct("send", Priority.HIGH, True, None)
    assert not choice.may_go_direct("publish", Priority.HIGH, False, None)
    assert not choice.may_go_direct("send", Priority.LOW, False, None)


# The vectors.


@vectors("choice", "sizes")
def test_a_size(vector: dict[str, Any]) -> None:
    assert size_of(vector["size_bytes"], *(vector[name] for name in LIMITS)) == vector["size"]


@vectors("choice", "cases")
def test_a_case(vector: dict[str, Any]) -> None:
    assert answer_of(decide(case_of(vector)), vector["case"]["priority"]) == vector["answer"]


def test_the_vectors_have_the_table_and_a_case_of_each_row() -> None:
    rows = [
        {"name": row.name, "when": {field: list(values) for field, values in row.when.items()}}
        | ({"route": row.route} if row.route else {"code": row.code})
        for row in TABLE
    ]
    assert json.loads(json.dumps(rows)) == load("choice", "rows")
    answered = {vector["answer"]["row"] for vector in load("choice", "cases") if vector["answer"]}
    assert answered == {row.name for row in TABLE}


_JQ = """
.rows as $rows | .sizes as $sizes | [.cases[] | .case as $c
  | (if $c.size_bytes == null then null elif $c.size_bytes > $c.max_body_bytes then "too_large"
     elif $c.size_bytes <= $c.inline_bytes then "inline" elif $c.size_bytes <= $c.pool_bytes then "pool"
     else "large" end) as $size
  | ($c + {size: $size}) as $c
  | ["attached", "recipient", "size"] as $late
  | first($rows[] | select(all(.when | to_entries[]; .key as $k | .value as $v
      | ($c[$k] == null and ($late | index($k))) or any($v[]; . == $c[$k]))))
  | if any(.when | keys[]; . as $k | $c[$k] == null and ($late | index($k))) then null
    elif .route then {row: .name, lane: $c.priority, route: .route} else {row: .name, code: .code} end]
"""


@pytest.mark.skipif(shutil.which("jq") is None, reason="no jq here")
def test_a_few_lines_of_jq_answer_the_same_by_the_table_in_the_vectors() -> None:
    program = subprocess.run(
        ["jq", "-c", _JQ, VECTORS / "choice.json"], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(program) == [vector["answer"] for vector in load("choice", "cases")]


# The documents.


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_documents_have_the_table(document: Any) -> None:
    text = document.read_text()
    assert "<!-- table: " in text
    assert filled(text) == text, "run: python tests/protocol_tables.py"


@pytest.mark.parametrize("priority", Priority)
def test_a_priority_alone_is_the_same_options_however_it_is_given(priority: Priority) -> None:
    for given in (priority, priority.value):
        assert _options.make_options({"priority": given}) == Options(priority)
        assert _options.make_options({"priority": given, "hops": 1}) == Options(priority, hops=1)
    for wrong in ("soon", "", None, 3, ["low"]):
        with pytest.raises(BadRequest, match="priority"):
            _options.make_options({"priority": wrong})
