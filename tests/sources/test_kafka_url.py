"""What a Kafka URL may say, what it may not, and that a secret in it is seen by nobody but the client."""

from pathlib import Path
from typing import Any

import pytest

from headrace.errors import ConfigError
from headrace.sources.kafka import KafkaSource
from headrace.sources.kafka_url import KafkaUrl

SECRET = "s3cret@/?#:;=+"


def parse(url: str, **options: Any) -> KafkaUrl:
    return KafkaUrl.parse(url, options)


def test_a_plain_url() -> None:
    url = parse("kafka://b2,b1:9093/payments")
    assert (url.name, url.brokers, url.topic) == (
        "kafka://b1:9093,b2:9092/payments",
        "b1:9093,b2:9092",
        "payments",
    )
    assert (url.start, url.format, url.dead_letters, url.group) == ("earliest", "json", None, None)


def test_the_name_does_not_hang_on_the_order_of_brokers_or_on_options() -> None:
    one = KafkaSource("kafka://a:1,b:2/t?start=latest&client.id=x")
    assert one.name == KafkaSource("kafka://b:2,a:1,a:1/t").name
    assert repr(one) == "KafkaSource('kafka://a:1,b:2/t')"


def test_addresses_of_six_parts() -> None:
    assert parse("kafka://[::1]:9094,[fe80::1]/t").brokers == "[::1]:9094,[fe80::1]:9092"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("earliest", "earliest"),
        ("latest", "latest"),
        ("1767225600123", 1767225600123),
        ("2026-01-01T00:00:00Z", 1767225600000),
        ("2026-01-01T00:00:00.123", 1767225600123),
        ("2026-01-01T02:00:00%2B02:00", 1767225600000),
        ("2026-01-01T02:00:00+02:00", 1767225600000),
        ("2026-01-01", 1767225600000),
    ],
)
def test_starts(text: str, expected: str | int) -> None:
    assert parse(f"kafka://b/t?start={text}").start == expected


def test_parts_of_messages_into_fields() -> None:
    url = parse("kafka://b/t?key=user&timestamp=written&header.trace-id=trace&header.a.b=c")
    assert (url.key, url.timestamp, dict(url.headers)) == ("user", "written", {"trace-id": "trace", "a.b": "c"})


def test_options_beside_the_url_win() -> None:
    url = parse("kafka://b/t?start=latest&fetch.wait.max.ms=5", start="earliest", config={"fetch.wait.max.ms": 7})
    assert (url.start, dict(url.properties)) == ("earliest", {"fetch.wait.max.ms": "7"})


def test_sizes_and_times() -> None:
    url = parse("kafka://b/t?chunk=2MiB&batch=50&refresh=1m30s&tombstones=reject")
    assert (url.chunk, url.batch, url.refresh, url.reject_tombstones) == (2 << 20, 50, 90.0, True)


def test_a_dotted_parameter_is_the_clients() -> None:
    url = parse("kafka://b/t?security.protocol=ssl&ssl.ca.location=/nowhere/ca.pem&linger.ms=9")
    assert dict(url.properties) == {
        "security.protocol": "ssl",
        "ssl.ca.location": "/nowhere/ca.pem",
        "linger.ms": "9",
    }


def test_what_the_registry_and_the_decoder_are_told() -> None:
    url = parse("kafka://b/t?format=avro&registry=http://u:p@r:8081&registry.timeout=2&validate=false")
    assert (url.format, url.registry) == ("avro", "http://u:p@r:8081")
    assert dict(url.options) == {"registry.timeout": "2", "validate": "false"}
    assert "u:p" not in repr(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kafka://b/t?strat=latest", "did you mean 'start'?"),
        ("kafka://b/t?start=yesterday", "expected start=earliest"),
        ("kafka://b/t?format=jsn", "did you mean 'json'?"),
        ("kafka://b/t?fetch.wait.max=5", "did you mean 'fetch.wait.max.ms'?"),
        ("kafka://b/t?fetch.wait.max.ms=soon", "fetch.wait.max.ms"),
        ("kafka://b/t?security.protocol=tls", "sasl_plaintext"),
        ("kafka://b/t?group.id=g", "write group=NAME"),
        ("kafka://b/t?enable.auto.commit=true", "only for lag monitors"),
        ("kafka://b/t?acks=1", "all in-sync replicas"),
        ("kafka://b/t?plugin.library.paths=x", "does not load code"),
        ("kafka://b/t?tombstones=keep", "tombstones=skip or reject"),
        ("kafka://b/t?batch=0", "from 1 to 1,000,000"),
        ("kafka://b/t?chunk=big", "8MiB"),
        ("kafka://b/t?refresh=0", "duration"),
        ("kafka://b/t?start=latest&start=earliest", "found it twice"),
        ("kafka://b/t?format=avro&key=user", "expected format=json"),
        ("kafka://b/t?dead_letters=a/b", "dead_letters="),
        ("kafka://b/a/b", "expected a topic"),
        ("kafka://b/", "expected a topic"),
        ("kafka://b", "expected a topic"),
        ("kafka:///t", "expected brokers"),
        ("kafka://b:port/t", "expected brokers"),
        ("kafka://b:99999/t", "expected brokers"),
        ("kafka://b/t#x", "%23"),
        ("file:///t", "scheme 'file'"),
        ("kafka://b/t?ssl.ca.location=${NO_SUCH_VARIABLE}", "NO_SUCH_VARIABLE"),
        ("kafka://b/t?sasl.password.file=/no/such/file", "sasl.password.file"),
    ],
)
def test_what_cannot_be_used_is_named(url: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        KafkaSource(url)
    assert said in str(raised.value)


def test_a_login_before_the_brokers_is_encrypted() -> None:
    url = parse("kafka://al%40ice:p%2Fw@b/t")
    assert dict(url.properties) == {
        "sasl.username": "al@ice",
        "sasl.password": "p/w",
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "PLAIN",
    }


def test_variables_may_hold_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_LOGIN", "bob")
    monkeypatch.setenv("KAFKA_PASSWORD", SECRET)
    monkeypatch.setenv("BROKERS", "x:1,y:2")
    url = parse("kafka://${KAFKA_LOGIN}:${KAFKA_PASSWORD}@${BROKERS}/t?sasl.mechanism=SCRAM-SHA-512")
    assert (url.brokers, url.properties["sasl.username"], url.properties["sasl.password"]) == ("x:1,y:2", "bob", SECRET)
    assert parse("kafka://b/t?sasl.password=${KAFKA_PASSWORD}").properties["sasl.password"] == SECRET


def test_a_secret_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(SECRET + "\n")
    assert parse(f"kafka://b/t?sasl.password.file={tmp_path}/password").properties == {"sasl.password": SECRET}


@pytest.mark.parametrize(
    "url",
    [
        "kafka://alice:hunter2@b/t?bogus=1",
        "kafka://alice:hunter2@b/t?bogus.property=1",
        "kafka://alice:hunter2@b/a/b",
        "kafka://alice:hunter2@b:port/t",
        "kafka://alice:hun/hunter2@b/t",  # not percent-encoded
        "kafka://alice:hun?hunter2@b/t",
        "kafka://hunter2@b/t?sasl.username=x",
        "kafka://b/t?sasl.password=hunter2&fetch.wait.max.ms=x",
        "kafka://b/t?ssl.key.password=hunter2&security.protocol=zzz",
        "kafka://b/t?sasl.oauthbearer.client.secret=hunter2&start=x",
    ],
)
def test_no_error_shows_a_secret(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        KafkaSource(url)
    assert "hunter2" not in f"{raised.value!r} {raised.value.__cause__!r}"


def test_nothing_that_is_shown_holds_a_secret() -> None:
    source = KafkaSource("kafka://alice:hunter2@b:1/t?registry=http://u:hunter2@r&format=avro")
    url = KafkaUrl.parse("kafka://alice:hunter2@b:1/t", {"ssl.key.password": "hunter2"})
    assert "hunter2" not in f"{source!r} {source} {source.name} {url!r}"
    assert url.shown("login failed for hunter2") == "login failed for …"
