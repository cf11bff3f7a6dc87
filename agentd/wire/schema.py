"""JSON Schemas (draft 2020-12) of what agentctl prints, made from the structs of outputs.py and views.py."""

from __future__ import annotations

import re
import types
import typing
from functools import cache
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from agentd.wire.ndjson import is_id
from agentd.wire.outputs import OUTPUTS

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

#: An id as JSON has it.
_IdText = Annotated[str, Meta(pattern="^[a-z2-7]{13}$", description="A message id.")]


def about(name: str) -> str:
    """What a verb prints, in a sentence."""
    return " ".join(_sentence(kind) for kind in OUTPUTS[name])


def schema_of(name: str) -> dict[str, Any]:
    """The schema of one object that this verb prints, or of the `error` that any prints."""
    one, parts = _schemas([name])
    what = "any verb of agentctl that fails" if name == "error" else f"agentctl {name} --json"
    return {"$schema": DIALECT, "title": what, "description": about(name), **one[name], **parts}


def schema_of_all() -> dict[str, Any]:
    """One schema with all of them: of an object that has under a verb's name what the verb prints."""
    each, parts = _schemas(list(OUTPUTS))
    described = {name: {"description": about(name), **one} for name, one in each.items()}
    return {"$schema": DIALECT, "title": "agentctl --json", "type": "object", "properties": described, **parts}


def _schemas(names: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Each one's schema, and the parts that these refer to."""
    kinds = [_as_json(kind) for name in names for kind in OUTPUTS[name]]
    made, parts = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    rest = iter(made)
    each = {name: _any_of([next(rest) for _ in OUTPUTS[name]]) for name in names}
    return each, {"$defs": parts} if parts else {}


def _any_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _sentence(kind: Any) -> str:
    doc = " ".join((kind.__doc__ or "").split()) if isinstance(kind, type) else "A JSON Schema."
    doc = re.sub("^Answer to [A-Z][a-z]+: ", "", doc)  # whoever reads this asked on the command line
    return doc[:1].upper() + doc[1:]


@cache
def _shown(kind: type[Struct]) -> type[Struct]:
    """The struct of what the JSON face shows of `kind`: an object, its ids as text, a body as any JSON."""
    hints = typing.get_type_hints(kind, include_extras=True)
    fields: list[Any] = []
    for one in msgspec.structs.fields(kind):
        if one.name == "cid":
            continue  # it belongs to the conversation, not to what was asked
        hint = Any if one.name == "body" else _as_json(hints[one.name])
        if one.required:
            fields.append((one.name, hint))
        elif one.default_factory is not msgspec.NODEFAULT:
            fields.append((one.name, hint, msgspec.field(default_factory=one.default_factory)))
        else:
            fields.append((one.name, hint, one.default))
    return msgspec.defstruct(kind.__name__, fields, kw_only=True, namespace={"__doc__": kind.__doc__})


def _as_json(hint: Any) -> Any:
    """A type as JSON has it."""
    if is_id(hint):
        return _IdText
    if isinstance(hint, type) and issubclass(hint, Struct):
        return _shown(hint)
    if typing.get_origin(hint) is list:
        return list[_as_json(typing.get_args(hint)[0])]  # type: ignore[misc]
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return typing.Union[tuple(_as_json(part) for part in typing.get_args(hint))]  # noqa: UP007
    return hint
