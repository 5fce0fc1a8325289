"""The pages: whole in themselves, and fenced in."""

from __future__ import annotations

import base64
import hashlib
import re

import httpx
import pytest

PAGES = ["/", "/docs"]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_needs_nothing_from_elsewhere(steady: httpx.Client, path: str) -> None:
    text = steady.get(path).text
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", text)
    outside = [address for address in addresses if re.match(r"(https?:)?//", address)]
    assert outside == []


@pytest.mark.parametrize("path", PAGES)
def test_only_a_pages_own_script_and_style_may_run(steady: httpx.Client, path: str) -> None:
    answer = steady.get(path)
    policy = dict(one.split(" ", 1) for one in answer.headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["connect-src"], policy["frame-ancestors"]) == ("'none'", "'self'", "'none'")
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.S)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"


@pytest.mark.parametrize("path", PAGES)
def test_nothing_in_a_page_needs_what_the_policy_forbids(steady: httpx.Client, path: str) -> None:
    text = steady.get(path).text
    assert re.findall(r"<[^>]+\s(?:style|on\w+)\s*=", text) == []
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_html_in_utf8_and_kept_out_of_frames(steady: httpx.Client, path: str) -> None:
    headers = steady.get(path).headers
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert (headers["x-frame-options"], headers["x-content-type-options"]) == ("DENY", "nosniff")
