"""A feature view: the declared aggregates, resolved against the stream's columns into tables and windows.

A view is frozen data. All that can be wrong with a declaration is found here, before any event: unknown columns,
types that do not suit, names that are taken. `machine.build(view, snapshot | None)` makes what keeps it.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

import polars as pl

from headrace.errors import ConfigError, InputError, SchemaError, nearest
from headrace.features import aggregates
from headrace.features.aggregates import json_schema, newest_event
from headrace.features.keys import check_keys
from headrace.features.layout import REDUCED, TableLayout
from headrace.features.merged import Built, Finish, FinishMany
from headrace.features.spec import Aggregate, Derived, Feature
from headrace.parts import Lookup

RESERVED = ("as_of", "age", "token", "lagging", "now", "view", "to_dict")
_PLAIN: dict[Any, type] = {pl.String(): str, pl.Int64(): int}


class _Inputs:
    """The input columns of a view, each computed once a batch from the user's expressions."""

    def __init__(self, view: str, columns: Mapping[str, pl.DataType]) -> None:
        self.view = view
        self.columns = columns
        self.exprs: dict[str, pl.Expr] = {}
        self._names: dict[tuple[str, str, str], str] = {}
        self._empty = pl.DataFrame(schema=dict(columns))
        self._sample = _sample(columns)

    def dtype(self, expr: pl.Expr, what: str) -> pl.DataType:
        roots = expr.meta.root_names()
        for root in roots:
            if root not in self.columns:
                raise SchemaError(
                    f"{what}: expected a column of the stream, found {root!r}; {nearest(root, self.columns)}"
                )
        try:
            found = self._empty.select(expr.alias("x"))
        except pl.exceptions.PolarsError as error:
            raise SchemaError(f"{what}: the expression {expr} does not fit the stream's columns: {error}") from None
        if found.height or not self._alone(expr):
            raise SchemaError(
                f"{what}: expected an expression with a value for each event, from that event alone, found {expr}; "
                "an aggregate, or one that looks at other rows, would depend on how the input is cut into batches"
            )
        return found.schema["x"]

    def _alone(self, expr: pl.Expr) -> bool:
        """Whether the values of a few sample rows are the same when each row is computed by itself."""
        try:
            together = self._sample.select(expr.alias("x"))
            singly = pl.concat([self._sample[row : row + 1].select(expr.alias("x")) for row in range(3)])
        except Exception:  # noqa: BLE001 - it may fail on values that were made up; events will tell
            return True
        return together.equals(singly)

    def value(self, expr: pl.Expr, where: pl.Expr | None, dtype: pl.DataType | None) -> str:
        """A column's name; where `where` does not hold, and where a computed number is not finite, it is null."""
        found = self.dtype(expr, self.view)
        key = (_identity(expr), "" if where is None else _identity(where), str(dtype))
        if key not in self._names:
            value = expr
            if found.is_float() and not expr.meta.is_column():
                value = pl.when(value.is_finite()).then(value)
            if dtype is not None and dtype != found:
                value = value.cast(dtype)
            if where is not None:
                self.mask(where)
                value = pl.when(where).then(value)
            self._add(key, value)
        return self._names[key]

    def mask(self, where: pl.Expr) -> str:
        key = ("", _identity(where), "")
        if key not in self._names:
            if self.dtype(where, self.view) != pl.Boolean:
                raise SchemaError(
                    f"{self.view}: where= must be true or false for each event, found {where} of type "
                    f'{self.dtype(where, self.view)}; compare it, as in pl.col("amount") > 0'
                )
            self._add(key, where.fill_null(False))
        return self._names[key]

    def _add(self, key: tuple[str, str, str], expr: pl.Expr) -> None:
        name = f"__{len(self._names)}"
        self._names[key] = name
        self.exprs[name] = expr


@dataclass(frozen=True)
class Window:
    """The aggregates of one table that look equally far back: their place among the view's, and how they finish."""

    over: int | None
    finish: tuple[tuple[int, Finish], ...]
    many: tuple[tuple[int, Finish, FinishMany | None], ...]
    reduced: tuple[str, ...]  # the blocks that merge by a NumPy reduction
    rowwise: tuple[str, ...]  # the blocks whose rows themselves are needed


@dataclass(frozen=True, eq=False)
class View:
    """Per-key values computed from a stream.

    Attributes:
        name: As in URLs and tools.
        doc: What a model reads.
        stream: The stream's name.
        keys: The key columns.
        features: What was declared, in order.
    """

    name: str
    doc: str
    stream: str
    keys: tuple[str, ...]
    features: dict[str, Feature]
    schema: dict[str, pl.DataType]
    time: str
    tables: tuple[TableLayout, ...]
    windows: tuple[tuple[Window, ...], ...]  # of each table, the longest first
    newest: tuple[int, ...]  # of each table, the imax column with the newest event time
    inputs: dict[str, pl.Expr]
    leaves: int  # how many aggregates there are, those inside arithmetic too
    outputs: tuple[Callable[[Sequence[Any]], Any], ...]  # each feature from the values of the aggregates
    types: dict[str, pl.DataType]
    nothing: tuple[dict[str, list[Any]], ...]  # of each table, what reduced blocks hold without events
    plain_key: type | None  # the type of keys that need no conversion

    @classmethod
    def declare(
        cls,
        name: str,
        doc: str,
        stream: str,
        keys: Sequence[str],
        features: Mapping[str, Feature],
        schema: Mapping[str, pl.DataType],
        time: str,
    ) -> View:
        """Resolves a declaration against the stream's columns.

        Raises:
            ConfigError: Nothing declared, a reserved name, or an aggregate that does not suit its column.
            SchemaError: A column that the stream does not have, with the nearest one suggested.
        """
        check_keys(name, keys, schema)
        for label in features:
            if label in RESERVED or label.startswith("_") or label in keys:
                raise ConfigError(f"{name}: {label!r} cannot name a feature, it is taken; choose another name")
        if not features:
            raise ConfigError(f'{name}: expected at least one feature such as total = hr.sum("amount", over="10m")')
        features = {label: _whole(feature, schema) for label, feature in features.items()}
        leaves = _leaves(features)
        inputs = _Inputs(name, schema)
        tables = {
            every: TableLayout(every, _keep([a for _, a in leaves if a.every == every]))
            for every in sorted({aggregate.every for _, aggregate in leaves})
        }
        newest = tuple(newest_event(table) for table in tables.values())
        built = [
            aggregates.build(aggregate, inputs, tables[aggregate.every], f"{name}.{label}")
            for label, aggregate in leaves
        ]
        places = {id(aggregate): place for place, (_, aggregate) in enumerate(leaves)}
        types = {
            label: built[places[id(f)]].dtype if isinstance(f, Aggregate) else pl.Float64()
            for label, f in features.items()
        }
        outputs = tuple(_output(f"{name}.{label}", f, places, built) for label, f in features.items())
        windows = tuple(_windows(every, [a for _, a in leaves], built) for every in tables)
        return cls(
            name=name,
            doc=doc,
            stream=stream,
            keys=tuple(keys),
            features=dict(features),
            schema=dict(schema),
            time=time,
            tables=tuple(tables.values()),
            windows=windows,
            newest=newest,
            inputs=inputs.exprs,
            leaves=len(leaves),
            outputs=outputs,
            types=types,
            nothing=tuple(
                {block: [REDUCED[block][2]] * len(table.columns[block]) for block in REDUCED}
                for table in tables.values()
            ),
            plain_key=_PLAIN.get(schema[keys[0]]) if len(keys) == 1 else None,
        )

    def __call__(self, *key: Any) -> Lookup:
        """One key's features, as a part of a context: the parts of the key in their order, or as `key` takes them."""
        return Lookup(self, self.key(key[0] if len(key) == 1 else key))

    @property
    def horizon(self) -> int | None:
        """The longest window, in microseconds; None where some feature looks back for ever."""
        spans = [table.keep for table in self.tables if table.keep is not None]
        return max(spans) if len(spans) == len(self.tables) else None

    def part(self, table: TableLayout) -> str:
        """The name under which a table's rows are journalled."""
        return f"{self.name}/{table.every}"

    def nullable(self, label: str) -> bool:
        feature = self.features[label]
        return not (isinstance(feature, Aggregate) and feature.kind in aggregates.NEVER_NULL)

    def feature_schema(self, label: str) -> dict[str, Any]:
        """The JSON schema of a feature's value."""
        return json_schema(self.types[label], nullable=self.nullable(label))

    def key_schema(self) -> dict[str, dict[str, Any]]:
        """The JSON schema of every key column."""
        return {key: json_schema(self.schema[key], nullable=False) for key in self.keys}

    def key(self, given: Any) -> Any:
        """A key in the form it is kept in: a value, or a tuple for several key columns.

        Args:
            given: A value, a sequence in the order of the key columns, or a mapping by column.

        Raises:
            InputError: Parts are missing, too many or of another type.
        """
        if isinstance(given, Mapping):
            if set(given) != set(self.keys):
                raise InputError(f"{self.name}: expected the key columns {list(self.keys)}, found {list(given)}")
            parts = [given[key] for key in self.keys]
        elif len(self.keys) == 1:
            parts = list(given) if isinstance(given, list | tuple) and len(given) == 1 else [given]
        else:
            parts = list(given) if isinstance(given, list | tuple) else [given]
        if len(parts) != len(self.keys):
            raise InputError(
                f"{self.name}: expected {len(self.keys)} key parts ({', '.join(self.keys)}), found {parts!r}"
            )
        typed = [self._key_part(key, part) for key, part in zip(self.keys, parts, strict=True)]
        return typed[0] if len(typed) == 1 else tuple(typed)

    def _key_part(self, key: str, part: Any) -> Any:
        dtype = self.schema[key]
        if (dtype == pl.String and type(part) is str) or (dtype == pl.Int64 and type(part) is int):
            return part
        try:
            if dtype == pl.Boolean:
                return {"true": True, "false": False, True: True, False: False}[part]
            if dtype == pl.Int64 and not isinstance(part, bool | float):
                return int(part)
            if dtype.is_temporal():
                series = pl.Series([part])
                return series.str.to_datetime(time_zone="UTC").cast(dtype)[0] if isinstance(part, str) else part
        except (KeyError, ValueError, TypeError, pl.exceptions.PolarsError):
            pass
        raise InputError(f"{self.name}: the key {key!r} is of type {dtype}, found {part!r}")

    def parse_key(self, parts: Sequence[str]) -> Any:
        """A key from the text of its parts, as in a URL."""
        return self.key(list(parts) if len(self.keys) > 1 else "/".join(parts))

    def fingerprint(self) -> str:
        """Text that changes when what is stored of the view can no longer be continued."""
        columns = {key: str(self.schema[key]) for key in self.keys}
        exprs = [f"{name}={_identity(expr).split('#')[0]}" for name, expr in self.inputs.items()]
        return repr([self.stream, columns, self.time, exprs, [table.fingerprint() for table in self.tables]])


def _identity(expr: pl.Expr) -> str:
    """Text that tells expressions apart. How they print does not: `round(1)` and `round(2)` print alike.

    A Python function cannot be told from another by its content; within a process it is told by being the same object.
    """
    try:
        return hashlib.blake2b(expr.meta.serialize(), digest_size=16).hexdigest()
    except pl.exceptions.ComputeError:
        return f"{expr}#{id(expr)}"


def _sample(columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Three rows to try expressions on: two are equal, one differs in every column that can be made up simply."""
    numbers = pl.DataFrame({"x": [1, 0, 1]})
    made = {}
    for name, dtype in columns.items():
        simple = dtype.is_numeric() or dtype.is_temporal() or dtype == pl.Boolean
        text = pl.col("x").cast(pl.String)
        column = pl.col("x").cast(dtype) if simple else text if dtype == pl.String else pl.lit(None, dtype)
        made[name] = column.alias(name)
    return numbers.select(**made)


def _keep(chosen: list[Aggregate]) -> int | None:
    spans = [aggregate.over for aggregate in chosen if aggregate.over is not None]
    return max(spans) if len(spans) == len(chosen) else None


def _whole(feature: Feature, schema: Mapping[str, pl.DataType]) -> Feature:
    """A `latest` that names no columns, with all of the stream's; a class of features may be declared on several."""
    if isinstance(feature, Aggregate) and feature.kind == "latest" and not feature.columns:
        return replace(feature, columns={column: pl.col(column) for column in schema})
    return feature


def _leaves(features: Mapping[str, Feature]) -> list[tuple[str, Aggregate]]:
    """Every aggregate, those inside arithmetic too, once each, under the feature that needs it first."""
    leaves: dict[int, tuple[str, Aggregate]] = {}

    def visit(label: str, feature: Feature | float) -> None:
        if isinstance(feature, Aggregate):
            leaves.setdefault(id(feature), (label, feature))
        elif isinstance(feature, Derived):
            visit(label, feature.left)
            visit(label, feature.right)

    for label, feature in features.items():
        visit(label, feature)
    return list(leaves.values())


def _windows(every: int, leaves: list[Aggregate], built: list[Built]) -> tuple[Window, ...]:
    overs = {aggregate.over for aggregate in leaves if aggregate.every == every}
    ordered = sorted(overs, key=lambda span: -(span or 0))
    windows = []
    for over in ordered:
        chosen = [
            (place, built[place])
            for place, aggregate in enumerate(leaves)
            if aggregate.every == every and aggregate.over == over
        ]
        # The longest window also tells the newest event.
        blocks = set().union(*(one.blocks for _, one in chosen)) | ({"imax"} if over == ordered[0] else set())
        rowwise = blocks - set(REDUCED)
        if "m2" in rowwise:
            rowwise |= blocks & {"isum", "fsum"}
        windows.append(
            Window(
                over,
                tuple((place, one.finish) for place, one in chosen),
                tuple((place, one.finish, one.many) for place, one in chosen),
                tuple(block for block in REDUCED if block in blocks),
                tuple(sorted(rowwise)),
            )
        )
    return tuple(windows)


def _output(
    label: str, feature: Feature | float, places: dict[int, int], built: list[Built]
) -> Callable[[Sequence[Any]], Any]:
    """A function from the aggregates' values to a feature's."""
    if isinstance(feature, Aggregate):
        return itemgetter(places[id(feature)])
    if not isinstance(feature, Derived):
        return lambda _: feature
    for side in feature.operands:
        if isinstance(side, Aggregate) and not built[places[id(side)]].dtype.is_numeric():
            raise ConfigError(f"{label}: expected numbers on both sides, found the {side.kind} of {[*side.columns]}")
    left, right = (_output(label, side, places, built) for side in feature.operands)
    compute = _OPERATORS[feature.op]

    def finish(values: Sequence[Any]) -> float | None:
        a, b = left(values), right(values)
        if a is None or b is None or (b == 0 and compute is operator.truediv):
            return None
        return float(compute(a, b))

    return finish


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
}
