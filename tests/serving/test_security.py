"""Who may ask: keys, where to listen, and what a browser on this machine is kept from."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.errors import ConfigError
from headrace.ops.security import Guard, Refusal, check_binding, is_loopback, read_api_key

KEY = "x" * 32


def refusal(guard: Guard, **headers: str) -> Refusal | None:
    return guard.refuses([(name.encode(), value.encode()) for name, value in headers.items()])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "LOCALHOST", "::1", "[::1]", "app.localhost"])
def test_loopback_is_what_only_this_machine_reaches(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.168.0.1", "example.com", "127.0.0.1.evil.com", "localhost.evil.com"]
)
def test_anything_else_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_loopback_needs_no_key() -> None:
    check_binding("127.0.0.1", None)


def test_more_than_loopback_needs_a_key() -> None:
    with pytest.raises(
        ConfigError, match=r"expected an API key to listen on '0.0.0.0'.*found none; set HEADRACE_API_KEY"
    ):
        check_binding("0.0.0.0", None)


def test_more_than_loopback_needs_a_key_that_cannot_be_guessed() -> None:
    with pytest.raises(ConfigError, match=r"at least 16 characters to listen on '0\.0\.0\.0', found 5") as raised:
        check_binding("0.0.0.0", "short")
    assert "'short'" not in str(raised.value)


def test_more_than_loopback_with_a_key_is_fine() -> None:
    check_binding("0.0.0.0", KEY)


def test_the_key_comes_from_a_file_before_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f" {KEY}\n")
    assert read_api_key(path, environ={"HEADRACE_API_KEY": "another"}) == KEY


def test_the_environment_may_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(KEY)
    assert read_api_key(environ={"HEADRACE_API_KEY_FILE": str(path)}) == KEY


def test_the_key_comes_from_the_environment() -> None:
    assert (read_api_key(environ={"HEADRACE_API_KEY": KEY}), read_api_key(environ={})) == (KEY, None)


def test_a_file_that_is_not_there_is_an_error_and_not_no_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected an API key in the file .*found FileNotFoundError"):
        read_api_key(tmp_path / "nothing")


@pytest.mark.parametrize("key", ["", "with blank", "tab\t", "ümlaut", "new\nline"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigError, match="printable ASCII without blanks") as raised:
        Guard(key)
    assert not key or key not in str(raised.value)


@pytest.mark.parametrize("value", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER   {KEY}"])
def test_the_right_key_passes(value: str) -> None:
    assert refusal(Guard(KEY), authorization=value) is None


@pytest.mark.parametrize(
    "value", ["", "Bearer", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", KEY, f"Basic {KEY}", "Bearer ü"]
)
def test_another_key_does_not(value: str) -> None:
    assert refusal(Guard(KEY), authorization=value) is Refusal.KEY


def test_no_key_does_not_pass_where_one_is_needed() -> None:
    assert refusal(Guard(KEY), host="127.0.0.1") is Refusal.KEY


def test_with_a_key_any_host_and_origin_pass() -> None:
    assert refusal(Guard(KEY), authorization=f"Bearer {KEY}", host="example.com", origin="https://elsewhere") is None


@pytest.mark.parametrize("host", ["127.0.0.1:8900", "localhost", "localhost:1", "[::1]:8900", "LocalHost:8900"])
def test_without_a_key_loopback_names_pass(host: str) -> None:
    guard = Guard(None)
    assert [refusal(guard, host=host), refusal(guard, host=host)] == [None, None]


@pytest.mark.parametrize("host", ["evil.com", "evil.com:8900", "127.0.0.1.evil.com", "", "localhost.evil.com:8900"])
def test_without_a_key_another_name_does_not(host: str) -> None:
    assert refusal(Guard(None), host=host) is Refusal.HOST


def test_without_a_key_a_host_is_needed() -> None:
    assert refusal(Guard(None), accept="*/*") is Refusal.HOST


def test_further_hosts_can_be_allowed() -> None:
    assert refusal(Guard(None, ["Proxy.Internal"]), host="proxy.internal:80") is None


def test_without_a_key_a_page_of_this_server_passes() -> None:
    assert refusal(Guard(None), host="127.0.0.1:8900", origin="http://127.0.0.1:8900") is None


@pytest.mark.parametrize("origin", ["http://evil.com", "null", "http://127.0.0.1:9999", "https://localhost:8900", ""])
def test_without_a_key_another_sites_page_does_not(origin: str) -> None:
    assert refusal(Guard(None), host="127.0.0.1:8900", origin=origin) is Refusal.ORIGIN


def test_what_hosts_are_remembered_is_bounded() -> None:
    guard = Guard(None)
    for port in range(1000):
        assert refusal(guard, host=f"127.0.0.1:{port}") is None
    assert len(guard._known) <= 64


def test_the_key_is_not_in_a_repr() -> None:
    assert KEY not in repr(Guard(KEY)) + str(vars(Refusal))
