"""Every route, over a real server on loopback."""

from __future__ import annotations

import gzip
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import polars as pl
import pytest

import headrace as hr
from headrace.serving.live import Live
from headrace.serving.server import BackgroundServer

KEY = "0123456789abcdef"
ROW = {
    "user_id": "u1",
    "total_10m": 2005.0,
    "large_1h": 1,
    "mean_1h": 1002.5,
    "last_at": "2026-01-31T11:59:58Z",
    "recent": [
        {"amount": 2000.0, "at": "2026-01-31T11:59:58Z"},
        {"amount": 5.0, "at": "2026-01-31T11:59:00Z"},
    ],
    "as_of": "2026-01-31T11:59:58Z",
    "age": 2.0,
    "lagging": False,
}
GOOD = {"user_id": "u2", "amount": 7.0, "at": "2026-01-31T11:59:59Z"}


def problem(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, kind and detail of a problem, which it must be."""
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["title"]
    return answer.status_code, body["type"].removeprefix("urn:headrace:problem:"), body["detail"]


# -- reads -------------------------------------------------------------------------------------------------------------


def test_a_row_is_the_key_the_features_and_their_time(http: httpx.Client, paid: hr.Token) -> None:
    answer = http.get("/v1/features/spending/u1")
    assert answer.status_code == 200
    assert answer.json() == ROW | {"token": str(paid)}
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("application/json", "no-store")


def test_head_is_get_without_its_body(steady: httpx.Client) -> None:
    got, head = steady.get("/v1/features/spending/u1"), steady.head("/v1/features/spending/u1")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize("key", ["a/b", "%2F", "ü ö", "..", "a?b#c", "a+b", "中文", "a%2Fb", "u%00"])
def test_a_key_comes_through_the_address_as_it_is(live: Live, http: httpx.Client, key: str) -> None:
    live.push("payment", [GOOD | {"user_id": key}])
    live.drain()
    encoded = "".join(f"%{byte:02X}" for byte in key.encode())
    row = http.get(f"/v1/features/spending/{encoded}").json()
    assert (row["user_id"], row["total_10m"]) == (key, 7.0)


def test_a_composite_key_is_several_segments(live: Live, http: httpx.Client) -> None:
    live.push("departure", [{"origin": "A/B", "flight": 7, "delay": 3.0, "at": "2026-01-31T11:59:59Z"}])
    live.drain()
    row = http.get("/v1/features/route/A%2FB/7").json()
    assert (row["origin"], row["flight"], row["departures"], row["mean_delay"]) == ("A/B", 7, 1, 3.0)


def test_an_empty_key_is_a_key(steady: httpx.Client) -> None:
    assert steady.get("/v1/features/spending/").json()["user_id"] == ""


@pytest.mark.parametrize(
    ("path", "status", "kind", "detail"),
    [
        ("/v1/features/spendin/u1", 404, "unknown-name", "found 'spendin'; did you mean 'spending'"),
        ("/v1/features//u1", 404, "unknown-name", "found ''"),
        ("/v1/features/route/EWR", 400, "input", "expected 2 key parts (origin, flight), found"),
        ("/v1/features/route/EWR/x", 400, "input", "the key 'flight'"),
        ("/v1/features/route/EWR/1/2", 400, "input", "expected 2 key parts"),
        ("/v1/features/spending/%FF", 400, "input", "percent-encoded UTF-8"),
        ("/v1/features/%FF/u1", 400, "input", "percent-encoded UTF-8"),
        ("/v1/features/spending/u1?now=noon", 400, "input", "expected now to be an ISO 8601 time"),
        ("/v1/features/spending/u1?max_age=0", 400, "input", "expected max_age"),
        ("/v1/features/spending/u1?timeout=-1", 400, "input", "expected timeout"),
        ("/v1/features/spending/u1?after=nonsense", 400, "input", "token"),
        ("/v1/features/spending/u1?maxage=1", 400, "input", "did you mean 'max_age'"),
        ("/v1/features/spending/u1?now=2020-01-01", 400, "input", "now: "),
        ("/v1/features/spending", 405, "method-not-allowed", "expected POST, found GET"),
        ("/v1/nothing", 404, "not-found", "expected an address that /docs lists, found '/v1/nothing'"),
        ("/v1/tools/", 404, "not-found", "/v1/tools/"),
        ("/v1/dead-letters/x", 404, "not-found", "/v1/dead-letters/x"),
        ("/v1/dead-letters/99", 404, "unknown-name", "expected the id of a dead letter, found 99"),
        (f"/v1/dead-letters/{10**30}", 404, "unknown-name", "expected the id of a dead letter"),
        ("/v1/dead-letters?limit=0", 400, "input", "expected limit to be a whole number from 1 to 1,000, found '0'"),
        ("/v1/dead-letters?stream=paymen", 404, "unknown-name", "did you mean 'payment'"),
        ("/v1/dead-letters?limits=1", 400, "input", "did you mean 'limit'"),
        ("/v1/streams/payment", 405, "method-not-allowed", "expected POST, found GET"),
    ],
)
def test_a_wrong_address_is_answered_with_what_was_expected(
    steady: httpx.Client, path: str, status: int, kind: str, detail: str
) -> None:
    found = problem(steady.get(path))
    assert found[:2] == (status, kind)
    assert detail in found[2]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/features/spending/u1", "GET, HEAD"),
        ("POST", "/v1/features/spending/u1", "GET, HEAD"),
        ("PUT", "/v1/features/spending", "POST"),
        ("POST", "/v1/status", "GET, HEAD"),
        ("OPTIONS", "/v1/tools", "GET, HEAD"),
        ("PATCH", "/v1/dead-letters/replay", "POST"),
    ],
)
def test_a_wrong_method_is_answered_with_the_right_one(
    steady: httpx.Client, method: str, path: str, allowed: str
) -> None:
    answer = steady.request(method, path)
    assert problem(answer)[:2] == (405, "method-not-allowed")
    assert sorted(answer.headers["allow"].split(", ")) == allowed.split(", ")


def test_the_instance_of_a_problem_is_the_address(steady: httpx.Client) -> None:
    assert steady.get("/v1/features/nothing/u1").json()["instance"] == "/v1/features/nothing/u1"


def test_a_read_may_be_of_another_moment(steady: httpx.Client) -> None:
    row = steady.get("/v1/features/spending/u1", params={"now": "2026-01-31T12:08:30Z"}).json()
    assert (row["total_10m"], row["age"]) == (2005.0, 512.0)


def test_a_read_after_a_push_sees_it(http: httpx.Client) -> None:
    token = http.post("/v1/streams/payment", json=[GOOD]).json()["token"]
    row = http.get("/v1/features/spending/u2", params={"after": token}).json()
    assert row["total_10m"] == 7.0


def test_a_read_after_what_has_not_been_pushed_is_refused_in_time(steady: httpx.Client) -> None:
    never = str(hr.Token({"push": 10**9}))
    found = problem(steady.get("/v1/features/spending/u1", params={"after": never, "timeout": "10ms"}))
    assert found[:2] == (504, "stale")


def test_a_read_that_waits_does_not_keep_a_push_from_coming(live: Live, http: httpx.Client, url: str) -> None:
    expected = str(hr.Token({"push": 1}))
    rows: list[Any] = []

    def wait() -> None:
        query = {"after": expected, "timeout": 30}
        rows.append(httpx.get(f"{url}/v1/features/spending/u2", params=query, timeout=40).json())

    waiting = [threading.Thread(target=wait) for _ in range(3)]
    for one in waiting:
        one.start()
    http.post("/v1/streams/payment", json=[GOOD])
    for one in waiting:
        one.join()
    assert [row["total_10m"] for row in rows] == [7.0] * 3


def test_an_old_value_is_refused_where_a_fresh_one_is_asked_for(steady: httpx.Client) -> None:
    fresh = steady.get("/v1/features/spending/u1", params={"max_age": "2s"})
    stale = steady.get("/v1/features/spending/u1", params={"max_age": "1s", "timeout": 0})
    assert (fresh.status_code, problem(stale)[:2]) == (200, (504, "stale"))


# -- many rows ---------------------------------------------------------------------------------------------------------


def test_many_rows_come_in_the_order_of_their_keys(http: httpx.Client, paid: hr.Token) -> None:
    rows = http.post("/v1/features/spending", json={"keys": ["u9", "u1", "u1"]}).json()["rows"]
    assert [(row["user_id"], row["total_10m"]) for row in rows] == [("u9", 0.0), ("u1", 2005.0), ("u1", 2005.0)]
    assert rows[1] == ROW | {"token": str(paid)}


def test_composite_keys_are_lists_or_objects(steady: httpx.Client) -> None:
    keys = [["EWR", 1], {"flight": 2, "origin": "JFK"}]
    rows = steady.post("/v1/features/route", json={"keys": keys}).json()["rows"]
    assert [(row["origin"], row["flight"]) for row in rows] == [("EWR", 1), ("JFK", 2)]


@pytest.mark.parametrize("count", [0, 1, 1000, 10_000])
def test_any_number_of_keys_up_to_the_limit(steady: httpx.Client, count: int) -> None:
    rows = steady.post("/v1/features/spending", json={"keys": [str(n) for n in range(count)]}).json()["rows"]
    assert [row["user_id"] for row in rows] == [str(n) for n in range(count)]


def test_many_rows_come_as_an_arrow_stream_if_asked(live: Live, http: httpx.Client, paid: hr.Token) -> None:
    headers = {"accept": "application/vnd.apache.arrow.stream"}
    answer = http.post("/v1/features/spending", json={"keys": ["u1", "u9"]}, headers=headers)
    assert pl.read_ipc_stream(io.BytesIO(answer.content)).equals(live.read_many("spending", ["u1", "u9"]))


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"", 400, "expected a JSON object such as"),
        (b"[1]", 400, "Expected `object`, got `array`"),
        (b"{}", 400, "missing required field `keys`"),
        (b'{"keys": "u1"}', 400, "Expected `array`, got `str`"),
        (b'{"keys": ["u1"], "aftr": "x"}', 400, "unknown field `aftr`"),
        (b'{"keys": ["u1"], "now": "noon"}', 400, "expected now to be"),
        (b'{"keys": [{"x": 1}]}', 400, "expected the key columns"),
        (b'{"keys": [null]}', 400, "the key 'user_id'"),
        (b'{"keys": [["a", "b"]]}', 400, "user_id"),
        (b'{"keys": ["\xff"]}', 400, "expected a JSON object"),
        (json.dumps({"keys": ["x"] * 10_001}).encode(), 413, "expected at most 10,000 keys, found 10,001"),
        (b'{"keys": ["' + b"x" * (8 << 20) + b'"]}', 413, "expected a body of at most 8 MiB"),
    ],
)
def test_a_wrong_body_of_many_keys(steady: httpx.Client, body: bytes, status: int, detail: str) -> None:
    found = problem(steady.post("/v1/features/spending", content=body))
    assert found[0] == status
    assert detail in found[2]


# -- pushes ------------------------------------------------------------------------------------------------------------


def test_a_push_says_what_was_taken_and_what_was_not(live: Live, http: httpx.Client) -> None:
    lines = [
        json.dumps(GOOD),
        '{"user_id": "u2", "amount": "x", "at": "2026-01-31T11:59:59Z"}',
        "{nonsense",
        "",
        json.dumps(GOOD),
    ]
    answer = http.post("/v1/streams/payment", content="\n".join(lines)).json()
    errors = answer.pop("errors")
    assert answer == {"accepted": 2, "rejected": 2, "token": answer["token"]}
    assert [error["row"] for error in errors] == [1, 2]
    assert "amount" in errors[0]["reason"]
    live.drain()
    assert live.read("spending", "u2").total_10m == 14.0  # type: ignore[attr-defined]


def as_parquet() -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame([GOOD]).write_parquet(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "content_type", "query"),
    [
        (json.dumps(GOOD), "application/x-ndjson", ""),
        (json.dumps([GOOD]), "application/json", ""),
        (json.dumps(GOOD, indent=2), "application/json", ""),
        (json.dumps(GOOD, indent=2), "", ""),
        (json.dumps(GOOD), "application/x-www-form-urlencoded", ""),
        ("user_id,amount,at\nu2,7.0,2026-01-31T11:59:59Z\n", "text/csv", ""),
        ("user_id,amount,at\nu2,7.0,2026-01-31T11:59:59Z\n", "", "?format=csv"),
        (as_parquet(), "application/vnd.apache.parquet", ""),
        (as_parquet(), "application/octet-stream", ""),
    ],
)
def test_a_push_takes_each_format(
    live: Live, http: httpx.Client, content: str | bytes, content_type: str, query: str
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    answer = http.post(f"/v1/streams/payment{query}", content=content, headers=headers)
    assert (answer.status_code, answer.json().get("accepted")) == (200, 1), answer.text
    live.drain()
    assert live.read("spending", "u2").total_10m == 7.0  # type: ignore[attr-defined]


def test_a_push_may_be_packed(http: httpx.Client) -> None:
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    answer = http.post("/v1/streams/payment", content=gzip.compress(json.dumps([GOOD] * 50).encode()), headers=headers)
    assert answer.json()["accepted"] == 50


def test_a_push_without_a_stated_length_is_taken(http: httpx.Client) -> None:
    answer = http.post(
        "/v1/streams/payment", content=iter([json.dumps(GOOD).encode()[:20], json.dumps(GOOD).encode()[20:]])
    )
    assert answer.json()["accepted"] == 1


def test_of_many_rejected_rows_a_hundred_are_named_unless_more_are_asked_for(http: httpx.Client) -> None:
    rows = [GOOD | {"amount": "x"}] * 150
    few = http.post("/v1/streams/payment", json=rows).json()
    all_ = http.post("/v1/streams/payment?errors=1000", json=rows).json()
    assert (few["rejected"], len(few["errors"]), len(all_["errors"])) == (150, 100, 150)


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "detail"),
    [
        ("/v1/streams/paymen", b"{}", {}, 404, "did you mean 'payment'"),
        ("/v1/streams/payment", b"<x/>", {"content-type": "application/xml"}, 415, "found 'application/xml'"),
        ("/v1/streams/payment", b"hello", {}, 415, "Content-Type"),
        ("/v1/streams/payment", b"x", {"content-encoding": "br"}, 415, "Content-Encoding"),
        ("/v1/streams/payment", b"x", {"content-encoding": "gzip"}, 400, "in gzip"),
        ("/v1/streams/payment?format=xml", b"{}", {}, 400, "expected format="),
        ("/v1/streams/payment?errors=x", b"{}", {}, 400, "expected errors to be"),
        ("/v1/streams/payment", b"PAR1xxxx", {}, 400, "Parquet"),
    ],
)
def test_a_push_that_cannot_be_used_at_all(
    steady: httpx.Client, path: str, content: bytes, headers: dict[str, str], status: int, detail: str
) -> None:
    found = problem(steady.post(path, content=content, headers=headers))
    assert found[0] == status
    assert detail.lower() in found[2].lower()


def test_a_push_past_the_limit_is_refused_and_the_connection_goes_on(live: Live) -> None:
    with BackgroundServer(live, max_body=1 << 20) as server, httpx.Client(base_url=server.url) as http:
        stated = http.post("/v1/streams/payment", content=b"x" * (3 << 20))
        unstated = http.post("/v1/streams/payment", content=iter([b"x" * (1 << 19)] * 6))
        assert [problem(one)[:2] for one in (stated, unstated)] == [(413, "too-large")] * 2
        assert "expected a body of at most 1 MiB, found one of 3,145,728" in stated.json()["detail"]
        assert http.post("/v1/streams/payment", json=[GOOD]).json()["accepted"] == 1


# -- tools, status, dead letters ---------------------------------------------------------------------------------------


def test_tools_are_a_bare_list_as_chat_completions_take_it(live: Live, http: httpx.Client) -> None:
    assert http.get("/v1/tools").json() == live.tools()


@pytest.mark.parametrize("body", [b'{"user_id": "u1"}', b' "{\\"user_id\\": \\"u1\\"}"'])
def test_a_call_takes_arguments_as_an_object_or_as_text(
    live: Live, http: httpx.Client, paid: hr.Token, body: bytes
) -> None:
    assert http.post("/v1/tools/spending", content=body).json() == live.call("spending", {"user_id": "u1"})


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
    [
        ("/v1/tools/spendin", b"{}", 404, "did you mean 'spending'"),
        ("/v1/tools/spending", b"", 400, "expected the argument 'user_id' (a string), found no arguments"),
        ("/v1/tools/spending", b"[]", 400, "found an array"),
        ("/v1/tools/spending", b"\xff", 400, "not UTF-8"),
        ("/v1/tools/spending", b'"\xff"', 400, "JSON"),
    ],
)
def test_a_call_that_does_not_fit(steady: httpx.Client, path: str, body: bytes, status: int, detail: str) -> None:
    found = problem(steady.post(path, content=body))
    assert found[0] == status
    assert detail in found[2]


def test_status_holds_the_figures_and_what_is_declared(http: httpx.Client, paid: hr.Token) -> None:
    found = http.get("/v1/status").json()
    assert (found["app"], found["ready"], found["streams"]["payment"]["processed"]) == ("fraud-desk", True, 2)
    assert found["views"]["spending"]["keys"] == 1
    assert found["declared"]["views"]["spending"]["features"]["total_10m"] == "sum of amount over the last 10m"


def test_drain_waits_for_what_was_pushed(http: httpx.Client) -> None:
    http.post("/v1/streams/payment", json=[GOOD])
    assert http.post("/v1/drain").json() == {"drained": True}
    assert http.get("/v1/features/spending/u2").json()["total_10m"] == 7.0


def test_dead_letters_are_listed_shown_and_replayed(live: Live, http: httpx.Client) -> None:
    long = json.dumps(GOOD | {"amount": "x" * 5000})
    http.post("/v1/streams/payment", content=f"{{nonsense\n{long}")
    found = http.get("/v1/dead-letters", params={"stream": "payment", "limit": 1}).json()
    assert (found["next"], found["counts"], found["dropped"]) == (1, {"payment": 2}, 0)
    assert found["dead_letters"][0] | {"reason": ""} == {
        "id": 1,
        "stream": "payment",
        "source": "push",
        "reason": "",
        "at": "2026-01-31T12:00:00Z",
        "truncated": False,
        "raw": "{nonsense",
    }
    second = http.get("/v1/dead-letters", params={"after": found["next"]}).json()
    assert (second["next"], second["dead_letters"][0]["truncated"]) == (None, True)
    assert second["dead_letters"][0]["raw"] == long[:1000]
    assert http.get("/v1/dead-letters/2").json()["raw"] == long
    assert http.post("/v1/dead-letters/replay", json={"ids": [2]}).json() == {"replayed": 0, "still_rejected": 1}
    assert http.post("/v1/dead-letters/replay").json() == {"replayed": 0, "still_rejected": 2}


def test_a_dead_letter_that_is_no_text_comes_in_base64(live: Live, http: httpx.Client) -> None:
    live.dead_letters.add("payment", "test", 0, [("binary", b"\xff\x00")])
    assert http.get("/v1/dead-letters/1").json()["raw_base64"] == "/wA="


def test_health_is_that_it_answers(steady: httpx.Client) -> None:
    assert steady.get("/healthz").json() == {"status": "ok"}


def test_readiness_follows_the_engine(live: Live, http: httpx.Client) -> None:
    assert http.get("/readyz").json()["ready"] is True
    live.close()
    answer = http.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)


def test_a_closed_engine_is_said(live: Live, http: httpx.Client) -> None:
    live.close()
    answer = http.post("/v1/streams/payment", json=[GOOD])
    assert problem(answer)[:2] == (503, "closed")
    assert answer.headers["retry-after"] == "1"


def test_metrics_are_prometheus_text(http: httpx.Client, paid: hr.Token) -> None:
    http.get("/v1/features/spending/u1")
    answer = http.get("/metrics")
    lines = answer.text.splitlines()
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'headrace_events_processed_total{stream="payment"} 2.0' in lines
    assert 'headrace_view_keys{view="spending"} 1.0' in lines
    assert 'headrace_http_requests_total{route="/v1/features/{view}/{key}",status="200"} 1.0' in lines


# -- access ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(steady_live: Live) -> Iterator[httpx.Client]:
    with BackgroundServer(steady_live, api_key=KEY) as server, httpx.Client(base_url=server.url) as client:
        yield client


@pytest.mark.parametrize(
    "path",
    [
        "/v1/features/spending/u1",
        "/v1/tools",
        "/v1/status",
        "/metrics",
        "/openapi.json",
        "/v1/nothing",
        "/v1/features/x/y",
    ],
)
def test_without_the_key_nothing_is_answered(locked: httpx.Client, path: str) -> None:
    answer = locked.get(path)
    assert problem(answer)[:2] == (401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/v1/features/spending/u1", "/v1/tools", "/v1/status", "/metrics", "/openapi.json"])
def test_with_the_key_all_is_answered(locked: httpx.Client, path: str) -> None:
    assert locked.get(path, headers={"authorization": f"Bearer {KEY}"}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/readyz"])
def test_probes_and_pages_need_no_key(locked: httpx.Client, path: str) -> None:
    assert locked.get(path).status_code == 200


def test_another_sites_page_cannot_push(steady: httpx.Client) -> None:
    answer = steady.post("/v1/streams/payment", json=[GOOD], headers={"origin": "https://evil.example"})
    assert problem(answer)[:2] == (403, "forbidden")


def test_a_name_that_was_made_to_point_here_is_not_answered(steady: httpx.Client) -> None:
    assert problem(steady.get("/v1/features/spending/u1", headers={"host": "evil.example"}))[:2] == (403, "forbidden")


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "broken"), [("/v1/features/spending/u1", "_makers"), ("/v1/status", "started"), ("/metrics", "started")]
)
def test_a_fault_of_ours_is_logged_and_not_told(
    live: Live, http: httpx.Client, caplog: pytest.LogCaptureFixture, path: str, broken: str
) -> None:
    delattr(live, broken)
    answer = http.get(path)
    status, kind, detail = problem(answer)
    assert (status, kind) == (500, "internal")
    assert "AttributeError" not in answer.text
    record = next(record for record in caplog.records if record.name == "headrace.http")
    assert answer.json()["instance"] in record.getMessage()
    assert answer.json()["instance"] in detail
    assert record.exc_info is not None
