"""`hr.connect`: the same methods, results and errors as in process."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from fraud_desk import Departure, Payment

import headrace as hr
from headrace.serving.live import Live
from headrace.serving.revive import converter
from headrace.serving.server import BackgroundServer, bind

GOOD = {"user_id": "u2", "amount": 7.0, "at": "2026-01-31T11:59:59Z"}
BAD = GOOD | {"amount": "x"}


@pytest.fixture(params=["live", "remote", "awaited"])
def either(request: pytest.FixtureRequest) -> Any:
    """The same test in process, over HTTP, and over HTTP from an event loop."""
    return request.getfixturevalue(request.param)


def signature(kind: type, name: str) -> str:
    """A method's, with the same names for what is the same near and far."""
    words = {"AsyncRemoteChanges": "Changes", "RemoteChanges": "Changes", "AsyncChatStream": "ChatStream"}
    found = str(inspect.signature(getattr(kind, name)))
    for far, near in words.items():
        found = found.replace(far, near)
    return found


@pytest.mark.parametrize("kind", [hr.Remote, hr.AsyncRemote])
def test_the_methods_have_the_signatures_of_live(kind: type) -> None:
    shared = [name for name in dir(kind) if not name.startswith("_") and hasattr(Live, name)]
    differ = {
        name: (theirs, ours) for name in shared if (theirs := signature(Live, name)) != (ours := signature(kind, name))
    }
    assert differ == {}
    assert {"push", "read", "read_many", "drain", "tools", "call", "stats", "ready", "close"} <= set(shared)
    assert {"context", "pack", "remember", "recall", "forget", "changes", "search", "delete", "status"} <= set(shared)


@pytest.mark.parametrize(
    "rows",
    [
        [GOOD, BAD],
        (GOOD, BAD),
        pytest.param(
            '{"user_id": "u2", "amount": 7.0, "at": "2026-01-31T11:59:59Z"}\n{"user_id": "u2", "amount": "x"}',
            id="text",
        ),
        b'{"user_id": "u2", "amount": 7.0, "at": "2026-01-31T11:59:59Z"}\n{"user_id": "u2", "amount": "x"}',
    ],
)
def test_a_push_takes_what_is_valid_and_names_what_is_not(either: Live | hr.Remote, rows: Any) -> None:
    token = either.push("payment", rows)
    assert (token.accepted, [reject.row for reject in token.rejected]) == (1, [1])
    assert token.positions == {"push": 1}
    assert "amount" in token.rejected[0].reason


def test_a_reject_holds_the_row_that_was_sent(either: Live | hr.Remote) -> None:
    (reject,) = either.push("payment", [GOOD, BAD]).rejected
    assert b'"x"' in reject.raw


@pytest.mark.parametrize("stream", ["payment", Payment])
@pytest.mark.parametrize(
    "rows",
    [
        GOOD,
        Payment.model_validate(GOOD),
        [Payment.model_validate(GOOD)],
        pl.DataFrame([GOOD]),
        pl.DataFrame([GOOD]).with_columns(pl.col("at").str.to_datetime(time_zone="UTC")),
        [{**GOOD, "at": datetime(2026, 1, 31, 11, 59, 59, tzinfo=UTC)}],
    ],
    ids=["dict", "event", "events", "frame", "typed frame", "datetimes"],
)
def test_a_push_takes_each_form_of_rows(either: Live | hr.Remote, stream: Any, rows: Any) -> None:
    token = either.push(stream, rows)
    row = either.read("spending", "u2", after=token)
    assert (token.accepted, row.total_10m) == (1, 7.0)  # type: ignore[attr-defined]


def test_a_push_takes_bytes_in_a_format(either: Live | hr.Remote) -> None:
    token = either.push("payment", b"user_id,amount,at\nu2,7,2026-01-31T11:59:59Z\n", format="csv")
    assert token.accepted == 1


def test_a_push_takes_the_stream_itself(live: Live, remote: hr.Remote) -> None:
    assert remote.push(live.app.streams["payment"], [GOOD]).accepted == 1


def test_a_row_is_the_same_near_and_far(live: Live, remote: hr.Remote, paid: hr.Token) -> None:
    assert remote.read("spending", "u1").to_dict() == live.read("spending", "u1").to_dict()


def test_a_rows_times_are_times(remote: hr.Remote, paid: hr.Token) -> None:
    row: Any = remote.read("spending", "u1")
    newest = datetime(2026, 1, 31, 11, 59, 58, tzinfo=UTC)
    assert (row.as_of, row.last_at, row.recent[0]["at"]) == (newest, newest, newest)
    assert isinstance(row, hr.Row)


def test_an_empty_row_is_the_same_near_and_far(live: Live, remote: hr.Remote) -> None:
    assert remote.read("route", ("EWR", 1)).to_dict() == live.read("route", ("EWR", 1)).to_dict()


def test_a_frame_is_the_same_near_and_far(live: Live, remote: hr.Remote, paid: hr.Token) -> None:
    near, far = live.read_many("spending", ["u1", "u9"]), remote.read_many("spending", ["u1", "u9"])
    assert far.schema == near.schema
    assert far.equals(near)


def test_no_keys_give_an_empty_frame(live: Live, remote: hr.Remote) -> None:
    assert remote.read_many("route", []).equals(live.read_many("route", []))


def test_rows_are_the_same_near_and_far(live: Live, remote: hr.Remote, paid: hr.Token) -> None:
    near, far = live.read_rows("spending", ["u1", "u9"]), remote.read_rows("spending", ["u1", "u9"])
    assert [row.to_dict() for row in far] == [row.to_dict() for row in near]


@pytest.mark.parametrize("key", ["u1", "a/b", "", ".", "..", "ü ö?#%", "a+b"])
def test_any_key_can_be_read(either: Live | hr.Remote, key: str) -> None:
    token = either.push("payment", [GOOD | {"user_id": key}])
    row: Any = either.read("spending", key, after=token)
    assert (row.user_id, row.total_10m) == (key, 7.0)


@pytest.mark.parametrize(
    "key", [("EWR", 7), ["EWR", 7], {"origin": "EWR", "flight": 7}, {"flight": 7, "origin": "EWR"}]
)
def test_composite_keys_are_tuples_or_dicts(either: Live | hr.Remote, key: Any) -> None:
    event = Departure(origin="EWR", flight=7, delay=3.0, at=datetime(2026, 1, 31, 11, 59, tzinfo=UTC))
    row: Any = either.read("route", key, after=either.push("departure", event))
    assert (row.origin, row.flight, row.mean_delay) == ("EWR", 7, 3.0)


def test_a_read_may_be_of_another_moment(either: Live | hr.Remote, paid: hr.Token) -> None:
    moment = datetime(2026, 1, 31, 12, 8, 30, tzinfo=UTC)
    assert [either.read("spending", "u1", now=now).age for now in (moment, 1769861310000000)] == [512.0, 512.0]  # type: ignore[attr-defined]


def test_a_fresh_value_may_be_asked_for(either: Live | hr.Remote, paid: hr.Token) -> None:
    assert either.read("spending", "u1", max_age=timedelta(seconds=2)).age == 2.0  # type: ignore[attr-defined]


def test_a_token_is_taken_as_text_too(either: Live | hr.Remote) -> None:
    token = str(either.push("payment", GOOD))
    assert either.read("spending", "u2", after=token).total_10m == 7.0  # type: ignore[attr-defined]
    assert either.read_many("spending", ["u2"], after=token)["total_10m"].to_list() == [7.0]


def test_drain_waits_for_all_that_was_pushed(either: Live | hr.Remote) -> None:
    either.push("payment", GOOD)
    either.drain(timeout=30)
    assert either.stats().streams["payment"].processed == 1


def test_tools_and_calls_are_the_same_near_and_far(live: Live, remote: hr.Remote, paid: hr.Token) -> None:
    assert remote.tools() == live.tools()
    assert remote.call("spending", {"user_id": "u1"}) == live.call("spending", {"user_id": "u1"})
    assert remote.call("spending", '{"user_id": "u1"}') == live.call("spending", {"user_id": "u1"})


def test_stats_are_the_same_but_for_the_time_between(live: Live, remote: hr.Remote, paid: hr.Token) -> None:
    near, far = live.stats(), remote.stats()
    assert (far.streams, far.views, far.app, type(far)) == (near.streams, near.views, near.app, type(near))


def test_readiness_is_the_same_near_and_far(live: Live, remote: hr.Remote) -> None:
    assert remote.ready() == live.ready() == (True, "ready")


def test_dead_letters_are_replayed(either: Live | hr.Remote) -> None:
    either.push("payment", [BAD])
    assert (either.replay_dead_letters([1]), either.replay_dead_letters()) == ((0, 1), (0, 1))


@pytest.mark.parametrize(
    ("error", "message", "method", "arguments"),
    [
        (hr.UnknownNameError, "did you mean 'payment'", "push", ("paymen", [GOOD])),
        (hr.UnknownNameError, "did you mean 'spending'", "read", ("spendin", "u1")),
        (hr.UnknownNameError, "did you mean 'spending'", "read_many", ("spendin", ["u1"])),
        (hr.UnknownNameError, "did you mean 'spending'", "call", ("spendin", {})),
        (hr.InputError, "expected the argument 'user_id'", "call", ("spending", {})),
        (hr.InputError, "expected several keys, found 'u1'", "read_many", ("spending", "u1")),
        (hr.InputError, "expected 2 key parts", "read", ("route", "EWR")),
        (hr.InputError, "key columns", "read", ("route", {"origin": "EWR", "nothing": 1})),
        (hr.InputError, "the key 'flight'", "read", ("route", ("EWR", "x"))),
        (hr.InputError, "expected dicts, events, a Polars frame or bytes, found int", "push", ("payment", 7)),
        (hr.UnknownNameError, "dead letter", "replay_dead_letters", ([99],)),
    ],
)
def test_errors_are_the_same_near_and_far(
    either: Live | hr.Remote, error: type[Exception], message: str, method: str, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises(error) as raised:
        getattr(either, method)(*arguments)
    assert type(raised.value) is error
    assert message in str(raised.value)


def test_what_did_not_come_in_time_is_a_stale_error(either: Live | hr.Remote) -> None:
    with pytest.raises(hr.StaleError):
        either.read("spending", "u1", after=hr.Token({"push": 10**9}), timeout=0.01)


def test_a_closed_engine_is_a_closed_error(live: Live, either: Live | hr.Remote) -> None:
    live.close()
    with pytest.raises(hr.ClosedError):
        either.push("payment", [GOOD])


def test_a_key_is_sent(live: Live) -> None:
    with BackgroundServer(live, api_key="0123456789abcdef") as server:
        with hr.connect(server.url, api_key="0123456789abcdef") as remote:
            assert len(remote.tools()) == 2
        with hr.connect(server.url) as remote, pytest.raises(hr.RemoteError, match="API key") as raised:
            remote.tools()
        assert raised.value.status == 401


def test_no_server_is_a_remote_error_that_says_where() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
    with hr.connect(f"http://127.0.0.1:{port}") as remote:
        with pytest.raises(
            hr.RemoteError, match=f"expected an answer from http://127.0.0.1:{port}, found none"
        ) as raised:
            remote.tools()
        assert (raised.value.status, remote.ready()[0]) == (0, False)


def test_a_closed_client_says_so(url: str) -> None:
    remote = hr.connect(url)
    remote.close()
    with pytest.raises(hr.RemoteError, match="found it closed"):
        remote.tools()


@pytest.mark.parametrize("address", ["127.0.0.1:8900", "", "ftp://x", "http://x:notaport"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(hr.InputError, match="expected an address such as"):
        hr.connect(address)


def test_times_inside_lists_and_objects_are_put_back() -> None:
    moment = {"type": ["string", "null"], "format": "date-time"}
    schema = {"type": "array", "items": {"type": "object", "properties": {"at": moment, "n": {"type": "integer"}}}}
    convert = converter(schema)
    assert convert is not None
    assert convert([None, {"at": "2026-01-31T12:00:00Z", "n": 1}, {"at": None}]) == [
        None,
        {"at": datetime(2026, 1, 31, 12, tzinfo=UTC), "n": 1},
        {"at": None},
    ]


def test_what_json_holds_itself_needs_no_putting_back() -> None:
    assert converter({"type": "array", "items": {"type": "number"}}) is None
