"""The tables of one index in Postgres, and the statements over them.

    indexes               one row an index: its dimension, how many points it has, and the heaviest weight of a word
    chunks_NAME           the points: id, document, text, payload (jsonb), vector, terms (int4[]), weights (sparsevec)
    chunks_NAME_words     in how many points each word is

Counts and points change in one transaction, under a lock of the index's: two writers take turns, readers never wait.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import sql

from headrace.document import Column
from headrace.errors import ConfigError
from headrace.stores.vectors.pgvector_filter import indexed
from headrace.stores.vectors.pgvector_link import Connection
from headrace.stores.vectors.servers import Address

# What pgvector allows a sparsevec: dimensions, and how many of them are not 0.
DIMENSIONS = 1_000_000_000
MOST_WORDS = 16_000
_LONGEST = 40
_TYPES = ["uuid", "text", "text", "jsonb", "", "int4[]", "sparsevec"]


class Tables:
    """An index's tables.

    Args:
        schema: Where they are.
        name: The index's; one that is too long for Postgres is cut and ends with its hash.
    """

    def __init__(self, schema: str, name: str) -> None:
        self.name = name
        short = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 13]}_{_hash(name)}"
        self._base = f"chunks_{short}"
        self._schema = schema
        self._key = int.from_bytes(hashlib.blake2b(f"{schema}\0{name}".encode(), digest_size=8).digest(), signed=True)
        self._parts = {
            "points": sql.Identifier(schema, self._base),
            "words": sql.Identifier(schema, f"{self._base}_words"),
            "indexes": sql.Identifier(schema, "indexes"),
            "stage": sql.Identifier("pg_temp", f"stage_{_hash(f'{schema}.{name}')}"),
        }
        self._kind = "halfvec"

    def _sql(self, text: str, **more: sql.Composable) -> sql.Composed:
        return sql.SQL(text).format(**self._parts, **more)

    # -- making ----------------------------------------------------------------------------------------------------

    def make(self, on: Connection, dimension: int, columns: Mapping[str, Column], address: Address) -> None:
        """Makes what is not there.

        Raises:
            ConfigError: The index is there with another dimension or type.
        """
        self._kind = address.choice("type", "halfvec", "vector")
        # Two that make a schema at once disturb each other, "if not exists" or not.
        on.execute("SELECT pg_advisory_xact_lock(7233185)")
        if on.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [self._schema]).fetchone() is None:
            on.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(self._schema)))
        on.execute(
            self._sql(
                "CREATE TABLE IF NOT EXISTS {indexes} (name text PRIMARY KEY, dimension int NOT NULL, "
                "kind text NOT NULL, points bigint NOT NULL DEFAULT 0, heaviest float8 NOT NULL DEFAULT 0)"
            )
        )
        on.execute(
            self._sql("INSERT INTO {indexes} (name, dimension, kind) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"),
            [self.name, dimension, self._kind],
        )
        row = on.execute(self._sql("SELECT dimension, kind FROM {indexes} WHERE name = %s"), [self.name]).fetchone()
        assert row is not None
        if row != (dimension, self._kind):
            raise ConfigError(
                f"{address.shown}: the index {self.name!r} holds {row[1]}({row[0]}), and {self._kind}({dimension}) is "
                "expected; use another name, or drop the index"
            )
        self._make_tables(on, dimension, address)
        for name, column in columns.items():
            index = sql.Identifier(f"{self._base}_{_hash(f'{name} {column.type} {column.many}')}")
            on.execute(self._sql("CREATE INDEX IF NOT EXISTS {name} ON {points} ", name=index) + indexed(name, column))

    def _make_tables(self, on: Connection, dimension: int, address: Address) -> None:
        kind = sql.SQL(f"{self._kind}({dimension})")
        # What is compared stays in the row; texts may go to a place of their own, or the row would not fit a page.
        on.execute(
            self._sql(
                "CREATE TABLE IF NOT EXISTS {points} (id uuid PRIMARY KEY, document text NOT NULL, "
                "text text NOT NULL, payload jsonb NOT NULL, vector {kind} NOT NULL, terms int4[] NOT NULL, "
                f"weights sparsevec({DIMENSIONS}) NOT NULL)",
                kind=kind,
            )
        )
        on.execute(
            self._sql(
                "CREATE TABLE IF NOT EXISTS {words} (term int4 PRIMARY KEY, points int NOT NULL) WITH (fillfactor = 70)"
            )
        )
        graph = f"(m = {address.number('m', 16, 2, 100)}, ef_construction = "
        graph += f"{address.number('ef_construction', 64, 4, 1_000)})"
        on.execute(
            self._sql(
                "CREATE INDEX IF NOT EXISTS {name} ON {points} "
                f"USING hnsw (vector {self._kind}_cosine_ops) WITH {graph}",
                name=sql.Identifier(f"{self._base}_hnsw"),
            )
        )
        on.execute(
            self._sql(
                "CREATE INDEX IF NOT EXISTS {name} ON {points} USING gin (terms)",
                name=sql.Identifier(f"{self._base}_terms"),
            )
        )

    def drop(self, on: Connection) -> None:
        """Takes all of the index away."""
        on.execute("SELECT pg_advisory_xact_lock(%s)", [self._key])
        on.execute(self._sql("DROP TABLE IF EXISTS {points}, {words}"))
        on.execute(self._sql("DELETE FROM {indexes} WHERE name = %s"), [self.name])

    # -- writing ---------------------------------------------------------------------------------------------------

    def write(self, on: Connection, rows: Sequence[tuple[Any, ...]], deletes: list[str], heaviest: float) -> None:
        """Writes rows and takes others away, with the counts of their words."""
        on.execute("SELECT pg_advisory_xact_lock(%s)", [self._key])
        on.execute(self._sql("CREATE TEMP TABLE IF NOT EXISTS {stage} (LIKE {points}) ON COMMIT DELETE ROWS"))
        if rows:
            with on.cursor().copy(self._sql("COPY {stage} FROM STDIN (FORMAT BINARY)")) as copy:
                copy.set_types([name or self._kind for name in _TYPES])
                for row in rows:
                    copy.write_row(row)
        on.execute(
            self._sql(
                """
                WITH gone AS (
                    SELECT terms FROM {points} WHERE id = ANY(%s::uuid[]) OR id IN (SELECT id FROM {stage})
                ), moved AS (
                    SELECT unnest(terms) AS term, -1 AS by FROM gone
                    UNION ALL SELECT unnest(terms), 1 FROM {stage}
                )
                INSERT INTO {words} AS known (term, points)
                SELECT term, sum(by) FROM moved GROUP BY term HAVING sum(by) <> 0
                ON CONFLICT (term) DO UPDATE SET points = known.points + excluded.points
                """
            ),
            [deletes],
        )
        removed = on.execute(self._sql("DELETE FROM {points} WHERE id = ANY(%s::uuid[])"), [deletes]).rowcount
        added = on.execute(self._sql(_UPSERT)).fetchone()
        on.execute(
            self._sql(
                "UPDATE {indexes} SET points = points + %s, heaviest = greatest(heaviest, %s::float8) WHERE name = %s"
            ),
            [(added[0] if added else 0) - removed, heaviest, self.name],
        )

    # -- reading ---------------------------------------------------------------------------------------------------

    def nearest(self, where: sql.Composable | None) -> sql.Composed:
        """Takes the vector, the condition's values, the vector and k."""
        text = "SELECT id, 1 - (vector <=> %s) FROM {points} WHERE {where} ORDER BY vector <=> %s LIMIT %s"
        return self._sql(text, where=where or sql.SQL("true"))

    def nearest_of_few(self, where: sql.Composable) -> sql.Composed:
        """Takes the condition's values, the vector twice and k; compares every point that passes."""
        return self._sql(
            "WITH few AS MATERIALIZED (SELECT id, vector FROM {points} WHERE {where}) "
            "SELECT id, 1 - (vector <=> %s) FROM few ORDER BY vector <=> %s LIMIT %s",
            where=where,
        )

    def best(self, where: sql.Composable | None) -> sql.Composed:
        """Takes the question's weights, the words of which a point must have one, the condition's values and k."""
        return self._sql(
            "SELECT id, -(weights <#> %s) AS score FROM {points} WHERE terms && %s::int4[] AND {where} "
            "ORDER BY score DESC LIMIT %s",
            where=where or sql.SQL("true"),
        )

    def words(self, on: Connection, terms: list[int]) -> tuple[int, float, dict[int, int]]:
        """How many points there are, the heaviest weight, and how many points have each word; as of one moment."""
        rows = on.execute(
            self._sql(
                "SELECT points, heaviest, term, counted FROM {indexes} LEFT JOIN (SELECT term, points AS counted "
                "FROM {words} WHERE term = ANY(%s::int4[])) AS asked ON true WHERE name = %s"
            ),
            [terms, self.name],
        ).fetchall()
        known = {term: counted for _, _, term, counted in rows if term is not None}
        return (rows[0][0], rows[0][1], known) if rows else (0, 0.0, known)

    def page(self, after: str | None, most: int, on: Connection) -> list[str]:
        """The ids that follow one, in order; from the first on if it is None."""
        follows = sql.SQL("true") if after is None else sql.SQL("id > {}::uuid").format(sql.Literal(after))
        rows = on.execute(self._sql("SELECT id FROM {points} WHERE {f} ORDER BY id LIMIT %s", f=follows), [most])
        return [str(row[0]) for row in rows]


# Rows that are there just so are left alone: to write a replay again costs no work in the graph.
_UPSERT = """
    WITH done AS (
        INSERT INTO {points} AS there SELECT * FROM {stage}
        ON CONFLICT (id) DO UPDATE SET
            document = excluded.document, text = excluded.text, payload = excluded.payload,
            vector = excluded.vector, terms = excluded.terms, weights = excluded.weights
        WHERE (there.document, there.text, there.payload, there.vector, there.terms, there.weights)
            IS DISTINCT FROM (excluded.document, excluded.text, excluded.payload, excluded.vector, excluded.terms,
                excluded.weights)
        RETURNING there.xmax = 0 AS added
    )
    SELECT count(*) FILTER (WHERE added) FROM done
"""


def _hash(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=6).hexdigest()
