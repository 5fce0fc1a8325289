"""What the web says of a question, as a table: the pages that a search engine finds, asked again now and then.

    app.table(hr.Page, "search:?q=qdrant release notes&k=10&every=6h", key="id")

Each search is one request to the engine; the pages that it finds are fetched like all others (`sources.web`), with
their robots.txt, pace and bounds, and never from private addresses. A page that is no longer found is deleted.

An engine is anything with a `search` (the protocol `WebSearch`), given as `engine=`. The one that is built in is the
Brave Search API (https://api-dashboard.search.brave.com/documentation): `GET /res/v1/web/search` with `q`, `count` (20
at most) and `offset`, the key in the header `X-Subscription-Token`. Its key is read from the environment
(`BRAVE_SEARCH_API_KEY`, or the variable that `key_env` names), sent to the engine's own host only, and never shown. It
is tested against a stand-in of its documented API, not against the service.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from headrace.errors import ConfigError, InputError, StorageError, nearest
from headrace.sources.web import WebReader, open_pages
from headrace.sources.web_fetch import Answer, Fetcher
from headrace.sources.web_links import Link
from headrace.sources.web_pages import retry_after
from headrace.sources.web_url import WebOptions, canonical

if TYPE_CHECKING:
    from headrace.document import TableSchema

ENDPOINT = "https://api.search.brave.com/res/v1/web/search"
KEY = "BRAVE_SEARCH_API_KEY"
MOST_HITS = 200  # ten pages of twenty, which is as far as the engine goes
_PAGE = 20
_LONGEST = 400  # characters of a question
_OWN = ("endpoint", "engine", "k", "key_env", "q")
_DEFAULTS = {"every": "1h"}


@dataclass(frozen=True)
class Hit:
    """A page that was found.

    Attributes:
        url: The page.
        title: What it is called.
        snippet: What the engine shows of it.
        published: When the engine believes that it was published.
    """

    url: str
    title: str = ""
    snippet: str = ""
    published: datetime | None = None


class WebSearch(Protocol):
    """A search engine."""

    @property
    def name(self) -> str:
        """What logs call it; it holds no secrets."""
        ...

    def search(self, query: str, k: int) -> list[Hit]:
        """The first `k` pages for a question, the best first.

        Raises:
            InputError: The engine does not take the question, or the key.
            StorageError: It is out of reach, or asked too often.
        """
        ...


class _Found(msgspec.Struct):
    url: str
    title: str = ""
    description: str = ""
    page_age: str | None = None


class _Web(msgspec.Struct):
    results: list[_Found] = []


class _Query(msgspec.Struct):
    more_results_available: bool = False


class _Reply(msgspec.Struct):
    web: _Web | None = None
    query: _Query | None = None


class BraveSearch:
    """The Brave Search API.

    Args:
        fetcher: What its requests are made with; its headers hold the key.
        endpoint: Where the API is.
    """

    name = "brave"

    def __init__(self, fetcher: Fetcher, endpoint: str = ENDPOINT) -> None:
        self._fetcher = fetcher
        self._endpoint = endpoint

    def search(self, query: str, k: int) -> list[Hit]:
        """The first `k` pages; see `WebSearch.search`."""
        hits: dict[str, Hit] = {}
        for offset in range(-(-min(k, MOST_HITS) // _PAGE)):
            asked = {"q": query, "count": min(k, _PAGE), "offset": offset, "result_filter": "web"}
            reply = self._reply(
                self._fetcher.get(f"{self._endpoint}?{urlencode(asked)}", {"Accept": "application/json"})
            )
            for found in reply.web.results if reply.web else []:
                hits.setdefault(found.url, Hit(found.url, found.title, found.description, _time(found.page_age)))
            if len(hits) >= k or reply.query is None or not reply.query.more_results_available:
                break
        return list(hits.values())[:k]

    def _reply(self, answer: Answer) -> _Reply:
        if answer.status == 429 or answer.status >= 500:
            wait = retry_after(answer.headers) or _first(answer.headers.get("x-ratelimit-reset", ""))
            raise StorageError(
                f"expected results of the search, found status {answer.status}; it may be asked in {wait:g} s"
            )
        if answer.status in (401, 403, 422):
            raise InputError(
                f"expected the search to take the question and its key, found status {answer.status}; "
                f"is the key in {KEY} one of this API?"
            )
        if answer.status != 200:
            raise InputError(f"expected results of the search, found status {answer.status}")
        try:
            return msgspec.json.decode(answer.body, type=_Reply)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"expected results of the search as its API documents them, found {error}") from None


def _first(numbers: str) -> float:
    """Seconds of "1, 1419704": until the shortest of the limits lets through again."""
    first = numbers.partition(",")[0].strip()
    return float(first[:9]) if first.isdigit() else 0.0


def _time(text: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


class SearchSource:
    """The source behind `search:` URLs.

    Args:
        url: `search:?q=a question&k=10&every=1h`
        options: As in the query, those of `headrace.sources.web_url`, and: `engine`, a `WebSearch` of your own;
            `key_env`, the variable that holds the key; `endpoint`, where the API is.

    Raises:
        ConfigError: The URL or an option cannot be used.
    """

    def __init__(self, url: str, **options: Any) -> None:
        parts = urlsplit(url)
        given = _DEFAULTS | dict(parse_qsl(parts.query, keep_blank_values=True)) | options
        if parts.scheme.lower() != "search" or parts.netloc or parts.path:
            raise ConfigError(f"expected a URL such as 'search:?q=a question', found {url[:200]!r}")
        for name in ("feed", "pages", "sitemap"):
            if name in given:
                raise ConfigError(f"a search has no option {name!r}; {nearest(name, _OWN)}")
        self._query = str(given.get("q", "")).strip()
        if not 0 < len(self._query) <= _LONGEST:
            raise ConfigError(f"expected a question of 1 to {_LONGEST} characters in q=, found {len(self._query)}")
        k = str(given.get("k", 10))
        if not k.isdigit() or not 0 < int(k) <= MOST_HITS:
            raise ConfigError(f"expected k to be a number from 1 to {MOST_HITS}, found {k!r}")
        self._k = int(k)
        self._engine: WebSearch | None = given.get("engine")
        self._endpoint = str(given.get("endpoint", ENDPOINT))
        self._key_env = str(given.get("key_env", KEY))
        rest: Mapping[str, Any] = {name: value for name, value in given.items() if name not in _OWN}
        self._options = WebOptions.parse(self._endpoint, rest)

    def __repr__(self) -> str:
        return f"SearchSource({self.name!r})"

    @property
    def name(self) -> str:
        """The question."""
        return f"search:{self._query}"

    def open(self, position: Any | None, schema: TableSchema) -> WebReader:
        """Begin after a position; see `TableSource.open`."""
        key = os.environ.get(self._key_env, "").strip()
        if self._engine is None and not key:
            raise ConfigError(
                f"expected the key of the search API in the environment, found no {self._key_env}; set it"
            )
        return open_pages(self.name, self._options, lambda: _Results(self, key), position, schema)

    def found(self, fetcher: Fetcher, key: str) -> list[Hit]:
        """Asks the engine."""
        if self._engine is not None:
            return self._engine.search(self._query, self._k)
        api = replace(self._options, url=canonical(self._endpoint), headers={"X-Subscription-Token": key}, robots=False)
        own = Fetcher(api, fetcher.stop)
        try:
            return BraveSearch(own, self._endpoint).search(self._query, self._k)
        finally:
            own.close()


class _Results:
    """The pages that the engine finds now."""

    keeps = False

    def __init__(self, source: SearchSource, key: str) -> None:
        self._source = source
        self._key = key

    def links(self, fetcher: Fetcher, /) -> list[Link]:
        """Asks, and passes over what is no page."""
        links: dict[str, Link] = {}
        for hit in self._source.found(fetcher, self._key):
            try:
                url = canonical(hit.url)
            except InputError:
                continue
            links.setdefault(url, Link(url, hit.title[:500], hit.published))
        return list(links.values())
