"""robots.txt, as RFC 9309 has it: no such file allows all, and one that cannot be read now forbids all until it can."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from protego import Protego

from headrace.errors import InputError, StorageError
from headrace.registry import shown_url
from headrace.sources.web_url import host_of

if TYPE_CHECKING:
    from headrace.sources.web_fetch import Answer

KEPT = 24 * 3600.0  # seconds that a file is believed
SLOWEST = 60.0  # seconds between two requests that a file may ask for
_MOST = 500 << 10  # bytes that are read of it
_MOST_HOSTS = 1_000


class Robots:
    """The files of the hosts that were asked.

    Args:
        fetch: Gets a URL, past all rules of this kind.
        agent: Whose rules count.
    """

    def __init__(self, fetch: Callable[[str], Answer], agent: str) -> None:
        self._fetch = fetch
        self._agent = agent
        self._files: dict[str, tuple[float, Protego]] = {}

    def check(self, url: str) -> None:
        """Whether a URL may be fetched.

        Raises:
            InputError: The rules forbid it.
            StorageError: The rules cannot be read now.
        """
        if not self._rules(url).can_fetch(url, self._agent):
            raise InputError(
                f"expected {shown_url(url)} to be allowed by its robots.txt, found it forbidden for {self._agent!r}; "
                "robots=False fetches it all the same, if it is yours"
            )

    def delay(self, url: str) -> float:
        """Seconds between two requests that the rules ask for."""
        asked = self._rules(url).crawl_delay(self._agent)
        return min(float(asked or 0), SLOWEST)

    def _rules(self, url: str) -> Protego:
        host = host_of(url)
        until, rules = self._files.get(host, (0.0, None))
        if rules is not None and time.monotonic() < until:
            return rules
        answer = self._fetch(f"{host}/robots.txt")
        if answer.status >= 500 or answer.status == 429:
            raise StorageError(
                f"expected the robots.txt of {host}, found status {answer.status}; without it nothing is fetched"
            )
        text = answer.body[:_MOST].decode("utf-8", "replace") if answer.status == 200 else ""
        rules = Protego.parse(text)
        if len(self._files) >= _MOST_HOSTS:
            self._files.pop(next(iter(self._files)))
        self._files[host] = (time.monotonic() + KEPT, rules)
        return rules
