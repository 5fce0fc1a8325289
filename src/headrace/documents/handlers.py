"""What is done with a document, by its type: one table, asked by name.

A collection is declared with one value for all types, or with a dict from types to values; each type's values together
are its handler. The last word has the type's own entry, then the default of the dict ("*"), then the default of all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xxhash

from headrace.document import Document, TableSchema
from headrace.documents.chunk import Chunking, chunking
from headrace.documents.clean import Cleaning, cleaning
from headrace.documents.splitters import describe, name_of
from headrace.documents.states import Cleaned, Piece, Raw
from headrace.documents.structure import formats
from headrace.errors import ConfigError, HeadraceError, InputError, SchemaError, UnknownNameError, nearest
from headrace.schema import snake_case

if TYPE_CHECKING:
    from headrace.documents.embed.base import Tokenizer

ANY = "*"
# A function from a document to its text, or to its title and its text.
Reader = Callable[[Any], str | tuple[str, str]]
_LONGEST_TITLE = 300
_CONVENTIONAL = ("title", "text")


@dataclass(frozen=True)
class Handler:
    """What is done with documents of one type.

    Attributes:
        kind: The model's name in snake_case.
        text: The columns that are searched, in order, or a function from a document to its text.
        cleaning: How the text is cleaned.
        chunking: How it is cut.
        embed: An embedder, or its name.
        format: The column that says how the text is structured, if the type has one.
    """

    kind: str
    text: tuple[str, ...] | Reader
    cleaning: Cleaning
    chunking: Chunking
    embed: Any
    format: str | None = None

    @property
    def fingerprint(self) -> str:
        """A text that changes when the same document would give other chunks; the embedder has its own name."""
        read = ",".join(self.text) if isinstance(self.text, tuple) else describe(self.text)
        said = f"{self.kind}/{read}/{self.format}/{self.cleaning.fingerprint}/{self.chunking.fingerprint}"
        return xxhash.xxh3_128_hexdigest(said.encode())


@dataclass(frozen=True, eq=False)
class Handlers:
    """The handlers of a collection's types, by the model's name in snake_case."""

    by_kind: Mapping[str, Handler]

    @classmethod
    def of(
        cls, schema: TableSchema, text: Any = None, clean: Any = None, chunk: Any = None, embed: Any = "minilm"
    ) -> Handlers:
        """The handlers of a table's types.

        Args:
            schema: The table's.
            text: A column, columns, or a function from a document to its text (or title and text). If not given,
                `title` and `text`, where a type has them.
            clean: As `hr.clean()`, a function from text to text, or False for none.
            chunk: As `hr.chunk()`, or a splitter.
            embed: An embedder, or its name.

        Each may be a dict from a model, its name in snake_case or "*" to such a value.

        Raises:
            SchemaError: A type has no such column, or it does not hold text.
            ConfigError: A value cannot be used, or a dict names a type that the table does not have.
        """
        made = {}
        for kind, model in schema.models.items():
            try:
                made[kind] = Handler(
                    kind,
                    _columns(model, _chosen("text", text, kind, schema), schema),
                    cleaning(_chosen("clean", clean, kind, schema)),
                    chunking(_chosen("chunk", chunk, kind, schema)),
                    _embedder(_chosen("embed", embed, kind, schema)),
                    next((one for one in ("format", "language") if one in model.model_fields), None),
                )
            except SchemaError as error:
                raise SchemaError(f"the type {kind}: {error}") from None
            except ConfigError as error:
                raise ConfigError(f"the type {kind}: {error}") from None
        return cls(made)

    def handler(self, kind: str) -> Handler:
        """A type's handler.

        Raises:
            UnknownNameError: There is no such type.
        """
        found = self.by_kind.get(kind)
        if found is None:
            raise UnknownNameError(f"no handler for documents of the type {kind!r}; {nearest(kind, self.by_kind)}")
        return found

    def embedder(self, kind: str) -> Any:
        """What a type is embedded with, as it was given."""
        return self.handler(kind).embed

    def fingerprint(self, kind: str) -> str:
        """A text that changes when documents of a type would be cleaned or cut otherwise."""
        return self.handler(kind).fingerprint

    def columns(self, kind: str) -> tuple[str, ...]:
        """The columns of a type that are searched; none where a function reads its text."""
        text = self.handler(kind).text
        return text if isinstance(text, tuple) else ()

    def cleaned(self, raw: Raw) -> Cleaned:
        """A row's text, clean; an empty one is allowed and has no chunks.

        Raises:
            InputError: The document cannot be used; the message says why, and in which step.
        """
        handler = self.handler(raw.kind)
        with _Step(raw.kind, "text"):
            title, text = _read(handler, raw.document)
        format = _format(handler, raw.document, text)
        with _Step(raw.kind, "clean"):
            # A title is a line of prose, whatever its document is written in.
            title = " ".join(handler.cleaning.apply(title[: 4 * _LONGEST_TITLE], "plain").split())[:_LONGEST_TITLE]
            return Cleaned(raw.key, raw.kind, title, handler.cleaning.apply(text, format), format)

    def pieces(self, cleaned: Cleaned, tokenizer: Tokenizer) -> list[Piece]:
        """A clean text, cut; none of an empty one.

        Raises:
            InputError: It cannot be cut; the message says why.
        """
        with _Step(cleaned.kind, "chunk"):
            return self.handler(cleaned.kind).chunking.split(cleaned.text, cleaned.format, tokenizer, cleaned.title)


class _Step:
    """What goes wrong inside is said with its type and step."""

    def __init__(self, kind: str, step: str) -> None:
        self._where = f"{kind}, step {step}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, InputError):
            raise InputError(f"{self._where}: {error}") from error
        if isinstance(error, Exception) and not isinstance(error, HeadraceError):
            raise InputError(f"{self._where}: expected a text that can be used, found {error!r}") from error


def _chosen(name: str, given: Any, kind: str, schema: TableSchema) -> Any:
    """Of a value for all types, or a dict by type, the one for this type."""
    if not isinstance(given, Mapping):
        return given
    named: dict[str, Any] = {}
    for key, value in given.items():
        label = key if isinstance(key, str) else snake_case(key.__name__) if isinstance(key, type) else repr(key)
        if label != ANY and label not in schema.models:
            raise ConfigError(f"{name}= names the type {label!r}; {nearest(label, [*schema.models, ANY])}")
        named[label] = value
    return named.get(kind, named.get(ANY))


def _columns(model: type[Document], given: Any, schema: TableSchema) -> tuple[str, ...] | Reader:
    if callable(given):
        reader: Reader = given
        return reader
    if given is None:
        found = tuple(one for one in _CONVENTIONAL if one in model.model_fields)
        if "text" not in found:
            texts = [
                one for one, column in schema.columns.items() if column.type == "str" and one in model.model_fields
            ]
            raise SchemaError(
                f"expected text= to name the columns that are searched, found none; {model.__name__} has the texts "
                f"{', '.join(texts) or 'none'}"
            )
        return found
    names = (given,) if isinstance(given, str) else tuple(given)
    if not names:
        raise SchemaError("expected text= to name at least one column, found none")
    for name in names:
        if name not in model.model_fields:
            raise SchemaError(f"{model.__name__} has no field {name!r}; {nearest(str(name), model.model_fields)}")
    return names


def _embedder(given: Any) -> Any:
    if given is None:
        return "minilm"
    if isinstance(given, str) or hasattr(given, "embed"):
        return given
    raise ConfigError(f"expected embed to be a name or an embedder, found {given!r}")


def _read(handler: Handler, document: Document) -> tuple[str, str]:
    """The title and the text of a row."""
    if not isinstance(handler.text, tuple):
        made = handler.text(document)
        title, text = made if isinstance(made, tuple) and len(made) == 2 else ("", made)
        if not isinstance(title, str) or not isinstance(text, str):
            raise InputError(
                f"the function {name_of(handler.text)}: expected a text, or a title and a text, found "
                f"{type(made).__name__}"
            )
        return title, text
    values = [_text(name, getattr(document, name)) for name in handler.text]
    if len(values) == 1:
        return "", values[0]
    return values[0], "\n\n".join(value for value in values[1:] if value.strip())


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(isinstance(one, str) for one in value):
        return "\n".join(value)
    raise InputError(f"expected text in {name!r}, found {type(value).__name__}")


def _format(handler: Handler, document: Document, text: str) -> str:
    """What the document says, if it is known, and else what the text looks like."""
    if handler.format is not None:
        told = getattr(document, handler.format)
        if isinstance(told, str):
            # "language" may be a person's: "cs" is Czech there, and no C#.
            found = formats.known(told)
            if found is not None and (handler.format == "format" or told.lower() == found):
                return found
    return formats.sniff(text)
