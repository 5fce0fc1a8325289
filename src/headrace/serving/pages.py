"""The server's pages: each is one file with its style and script inside, and needs nothing from elsewhere.

A page shows names and values that came from outside, so it runs under a Content-Security-Policy that allows its own
script and style (by their hashes) and connections to this server, and nothing else: what slips into the page as
markup cannot run, load or send anything.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from starlette.responses import Response

_INLINE = {
    "script-src": re.compile(r"<script>(.*?)</script>", re.S),
    "style-src": re.compile(r"<style>(.*?)</style>", re.S),
}


def html(name: str) -> Response:
    """A page of the directory `page`, with the headers that fence it in."""
    text, policy = _page(name)
    headers = {
        "cache-control": "no-cache",
        "content-security-policy": policy,
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }
    return Response(text, headers=headers, media_type="text/html")


@cache
def _page(name: str) -> tuple[str, str]:
    text = (files("headrace.serving") / "page" / name).read_text(encoding="utf-8")
    allowed = [f"{directive} {' '.join(map(_hash, pattern.findall(text)))}" for directive, pattern in _INLINE.items()]
    closed = ["default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
    return text, "; ".join([*closed, "connect-src 'self'", "img-src data:", *allowed])


def _hash(inline: str) -> str:
    digest = base64.b64encode(hashlib.sha256(inline.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"
