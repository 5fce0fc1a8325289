"""URLs of Postgres tables, and the messages of its log, without a server."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.errors import ConfigError, DecodeError
from headrace.sources import postgres_output as output
from headrace.sources.postgres import PostgresSource
from headrace.sources.postgres_place import Place
from headrace.sources.postgres_url import PostgresUrl

URL = "postgres://reader:se%2Fcret@db.example:5433/news?table=public.articles"


def test_what_a_url_says() -> None:
    url = PostgresUrl.parse(f"{URL}&sslmode=require&columns=id,%20title", {"snapshot": "never", "keep_slot": True})
    assert url.name == "postgres://db.example:5433/news/public.articles"
    assert url.connect == {
        "user": "reader",
        "password": "se/cret",
        "host": "db.example",
        "port": "5433",
        "dbname": "news",
        "sslmode": "require",
    }
    assert (url.table, url.columns, url.snapshot, url.keep_slot) == (
        ("public", "articles"),
        ("id", "title"),
        False,
        True,
    )


def test_slots_are_named_after_database_and_table_alone() -> None:
    names = {
        PostgresSource(url).slot
        for url in (URL, URL.replace("db.example:5433", "other"), URL.replace("public.articles", "articles"))
    }
    others = {
        PostgresSource(url).slot
        for url in (URL.replace("/news", "/olds"), URL.replace("public.", "old."), URL.replace("articles", "Articles"))
    }
    assert (len(names), len(others), names & others) == (1, 3, set())
    assert all(name.startswith("headrace_articles_") and len(name) <= 63 for name in names | others)


def test_variables_are_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "p@ss/word?&#%")
    assert PostgresUrl.parse("postgres://u:${SECRET}@h/db?table=t", {}).connect["password"] == "p@ss/word?&#%"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://h/db?table=t", "scheme 'mysql'"),
        ("postgres://h?table=t", "a database"),
        ("postgres://h/db", "table=NAME"),
        ("postgres://h/db?table=", "table=NAME"),
        ("postgres://h/db?table=t&slto=x", "did you mean 'slot'"),
        ("postgres://h/db?table=t&table=u", "once"),
        ("postgres://h/db?table=t&snapshot=always", "snapshot=initial or never"),
        ("postgres://h/db?table=t&slot=Mine", "a-z"),
        ("postgres://u:${NO_SUCH}@h/db?table=t", "NO_SUCH"),
        ("postgres://u:se/cret@h/db?table=t", "%2F"),
        ("postgres://u:%zz@h/db?table=t", "%2F"),
    ],
)
def test_urls_that_cannot_be_used(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as found:
        PostgresSource(url)
    assert "se/cret" not in str(found.value)


def test_no_secret_is_shown() -> None:
    source = PostgresSource(URL)
    assert "cret" not in f"{source!r} {source.name} {source.slot} {PostgresUrl.parse(URL, {})!r}"
    assert "cret" not in PostgresUrl.parse(URL, {}).shown(ValueError("password se/cret is wrong"))


def test_positions_are_read_as_they_were_written() -> None:
    for place in (
        Place(0x16B3748, "s", "7", 5),
        Place((1 << 64) - 1, "s", "7", 5, snapshot=True),
        Place(1, "s", "7", 5, snapshot=True, after=("a", "b")),
    ):
        assert Place.read(place.json(), "t") == place


@pytest.mark.parametrize("position", [{}, [], "0/1", 3, {"lsn": "1", "slot": "", "system": "", "table": 1}, {"0": 5}])
def test_positions_of_others_are_refused(position: object) -> None:
    with pytest.raises(ConfigError, match="another source"):
        Place.read(position, "t")


ROW = struct.pack("!H", 3) + b"t" + struct.pack("!I", 2) + b"ab" + b"n" + b"u"
OID = struct.pack("!I", 7)
CELLS = [b"ab", None, output.UNCHANGED]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"I" + OID + b"N" + ROW, output.Insert(7, CELLS)),
        (b"U" + OID + b"N" + ROW, output.Update(7, "", None, CELLS)),
        (b"U" + OID + b"K" + ROW + b"N" + ROW, output.Update(7, "K", CELLS, CELLS)),
        (b"U" + OID + b"O" + ROW + b"N" + ROW, output.Update(7, "O", CELLS, CELLS)),
        (b"D" + OID + b"K" + ROW, output.Delete(7, "K", CELLS)),
        (b"T" + struct.pack("!IBII", 2, 1, 7, 8), output.Truncate((7, 8))),
        (b"B" + struct.pack("!QqI", 9, 0, 571), output.Begin(571, 946_684_800_000_000)),
        (b"C" + struct.pack("!BQQq", 0, 9, 10, 0), output.Commit(10)),
        (
            b"R" + OID + b"public\0t\0d" + struct.pack("!H", 2) + b"\1id\0" + struct.pack("!Ii", 23, -1)
            + b"\0x\0" + struct.pack("!Ii", 25, -1),
            output.Relation(7, "public", "t", "d", ("id", "x"), (23, 25), ("id",)),
        ),
        (b"Y" + OID, None),
    ],
)  # fmt: skip
def test_messages_of_the_log(data: bytes, expected: object) -> None:
    assert output.decode(data) == expected


@given(st.binary(max_size=40), st.sampled_from([b"", *(bytes([each]) for each in b"IUDTBCRYOMS")]))
@example(b"", b"")
def test_noise_is_an_error_of_ours(data: bytes, kind: bytes) -> None:
    with suppress(DecodeError):  # and of no other kind
        output.decode(kind + data)


@given(st.integers(0, (1 << 64) - 1))
def test_places_in_the_log_are_texts_and_numbers(lsn: int) -> None:
    assert output.lsn_number(output.lsn_text(lsn)) == lsn
