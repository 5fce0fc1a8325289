"""JSON messages with a JSON Schema in a registry: the text is decoded as JSON is, and the schema says beforehand
whether it can be the model's.

A JSON Schema leaves open what it does not name, so only what it rules out is a misfit: a property that it closes the
object to, or a type that can never be the field's. Each message against its whole schema is another thing, and much
slower than decoding it: `validate=true` asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from headrace.formats.evolution import misfit
from headrace.formats.verdicts import shorten
from headrace.formats.wire import UnusableError
from headrace.schema import Schema

_KINDS = {
    "string": "text",
    "number": "number",
    "integer": "int",
    "boolean": "bool",
    "array": "array",
    "object": "record",
    "null": "null",
}
_MOST_REFERENCES = 32
_OPEN: dict[str, Any] = {}


@dataclass(frozen=True)
class JsonType:
    """A part of a JSON Schema, in the words of `evolution.Written`.

    Attributes:
        node: It, references followed.
        documents: The whole schema under "", and those that it refers to by their names.
        document: The one of them that it is in.
    """

    node: Any
    documents: Mapping[str, Any] = field(repr=False)
    document: str = ""

    @property
    def kind(self) -> str:
        if not isinstance(self.node, dict):
            return "any"
        if len(self._choices()) > 1:
            return "union"
        kind = _KINDS.get(str(self._types()[0]), "any") if self._types() else "any"
        if kind == "any" and isinstance(self.node.get("properties"), dict):
            return "record"
        return kind

    @property
    def name(self) -> str:
        if self.kind == "union":
            return "one of " + ", ".join(choice.name for choice in self.inside())
        return str(self._types()[0]) if self._types() else "anything"

    def part(self, key: str) -> JsonType | None:
        properties = self.node.get("properties") if isinstance(self.node, dict) else None
        if isinstance(properties, dict) and key in properties:
            return self._at(properties[key])
        closed = isinstance(self.node, dict) and self.node.get("additionalProperties") is False
        return None if closed and not self._composed() else self._at(_OPEN)

    def inside(self) -> Sequence[JsonType]:
        choices = self._choices()
        if len(choices) > 1:
            return choices
        items = self.node.get("items") if isinstance(self.node, dict) else None
        return [self._at(items if isinstance(items, dict) and not self.node.get("prefixItems") else _OPEN)]

    def _at(self, node: Any) -> JsonType:
        return resolved(node, self.documents, self.document)

    def _types(self) -> list[Any]:
        found = self.node.get("type", []) if isinstance(self.node, dict) else []
        return list(found) if isinstance(found, list) else [found]

    def _choices(self) -> list[JsonType]:
        for word in ("oneOf", "anyOf"):
            listed = self.node.get(word)
            if isinstance(listed, list) and listed and "properties" not in self.node:
                return [self._at(each) for each in listed]
        return [JsonType({**self.node, "type": one}, self.documents, self.document) for one in self._types()]

    def _composed(self) -> bool:
        return any(
            word in self.node for word in ("allOf", "anyOf", "oneOf", "patternProperties", "$ref", "$dynamicRef")
        )


def resolved(node: Any, documents: Mapping[str, Any], document: str = "") -> JsonType:
    """A part of a document, its references followed; one that cannot be leaves all open."""
    for _ in range(_MOST_REFERENCES):
        reference = node.get("$ref") if isinstance(node, dict) else None
        if not isinstance(reference, str):
            return JsonType(node, documents, document)
        name, _, pointer = reference.partition("#")
        document = name or document
        if document not in documents or (pointer and not pointer.startswith("/")):
            break
        node = _pointed(documents[document], pointer)
    return JsonType(_OPEN, documents)


def _pointed(node: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) points at."""
    for step in pointer.split("/")[1:]:
        step = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and step in node:
            node = node[step]
        elif isinstance(node, list) and step.isdecimal() and len(step) < 9 and int(step) < len(node):
            node = node[int(step)]
        else:
            return _OPEN
    return node


class JsonSchema:
    """A JSON Schema of the registry.

    Args:
        text: It.
        references: The texts of those that it refers to, by name.

    Raises:
        UnusableError: It is not one, or its messages cannot be the model's.
    """

    def __init__(self, schema: Schema, text: str, references: Mapping[str, str]) -> None:
        try:
            self.documents = {"": json.loads(text)} | {name: json.loads(each) for name, each in references.items()}
        except (ValueError, RecursionError) as error:
            raise UnusableError(f"expected a JSON Schema, found one that cannot be read: {error}") from None
        root = self.documents[""]
        if not isinstance(root, dict | bool):
            raise UnusableError(f"expected a JSON Schema, found {shorten(text, 80)}")
        difference = misfit(schema, resolved(root, self.documents))
        if difference:
            raise UnusableError(difference)

    def validator(self) -> Callable[[bytes], str | None]:
        """What says of a JSON text why it is not valid under the schema, or None.

        Raises:
            UnusableError: The schema breaks the rules of JSON Schema.
        """
        from jsonschema import Draft7Validator, exceptions, validators
        from referencing import Registry, Resource
        from referencing.exceptions import Unresolvable
        from referencing.jsonschema import DRAFT7

        root = self.documents[""]
        made = validators.validator_for(root, default=Draft7Validator)
        try:
            made.check_schema(root)
        except exceptions.SchemaError as error:
            raise UnusableError(f"expected a JSON Schema, found one that breaks its rules: {error.message}") from None
        # A registry without a way to retrieve: nothing is ever fetched from where a $ref points.
        known: Registry[Any] = Registry().with_resources(
            (name, Resource.from_contents(each, default_specification=DRAFT7))
            for name, each in self.documents.items()
            if name
        )
        validate = made(root, registry=known)

        def problem(text: bytes) -> str | None:
            try:
                error = exceptions.best_match(validate.iter_errors(json.loads(text)))
            except Unresolvable as missing:
                return f"its JSON Schema refers to {missing.ref!r}, which the registry did not give"
            except (ValueError, RecursionError):
                return None  # not JSON: the decoder says it better
            return None if error is None else f"{error.json_path}: {shorten(error.message, 200)}"

        return problem
