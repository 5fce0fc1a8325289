"""What the web source makes of what servers say, against a site on this machine."""

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from web_site import Reply, Site

from headrace.document import TableSchema
from headrace.errors import ConfigError, InputError, StorageError
from headrace.files import Page
from headrace.sources import web_addresses
from headrace.sources.base import Letter
from headrace.sources.web import WebReader, WebSource
from headrace.sources.web_addresses import is_public
from headrace.sources.web_fetch import Fetcher
from headrace.sources.web_url import WebOptions
from headrace.testing.tables import PATIENCE, TableModel, batches

SCHEMA = TableSchema.of("pages", [Page], key="id")
QUICK: dict[str, Any] = {"every": "10ms", "delay": 0, "allow_private": True}
PARAGRAPH = "A headrace is the channel that brings running water to the mill wheel. " * 12


class Table:
    """What a reader has told, until now."""

    def __init__(self, reader: WebReader) -> None:
        self.reader = reader
        self.model = TableModel(SCHEMA)
        self.letters: list[Letter] = []
        self.position: Any = None

    def now(self) -> dict[str, str]:
        """All that is due has been asked for."""
        for batch in batches(self.reader):
            self.take(batch)
        return self.texts()

    def take(self, batch: Any) -> None:
        self.model.take(batch)
        self.letters += batch.letters
        self.position = batch.position

    def texts(self) -> dict[str, str]:
        return {key: row.text for key, row in self.model.rows.items() if isinstance(row, Page)}

    def until(self, true: Callable[[], bool]) -> dict[str, str]:
        """Reads until something has come about."""
        deadline = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < deadline, (self.texts(), self.letters)
            batch = self.reader.read(0.02)
            if batch is not None:
                self.take(batch)
        return self.texts()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def opened() -> Iterator[Callable[..., Table]]:
    """Opens a source's table; closes its reader at the end."""
    readers: list[WebReader] = []

    def opened(url: str, position: Any = None, **options: Any) -> Table:
        readers.append(WebSource(url, **(QUICK | options)).open(position, SCHEMA))
        return Table(readers[-1])

    yield opened
    for reader in readers:
        reader.close()


def test_a_page_is_clean_markdown(site: Site, opened: Any) -> None:
    """Without its menus; with its title, language and date."""
    body = f"""<html lang="en"><head><title>On water</title>
      <meta property="article:published_time" content="2026-05-01T10:00:00Z"></head>
      <body><nav><a href="/">Home</a> <a href="/more">More of it</a></nav>
      <article><h1>On water</h1><p>{PARAGRAPH}</p><h2>Wheels</h2><p>{PARAGRAPH}</p><ul><li>overshot</li></ul></article>
      <footer>Copyright</footer></body></html>"""
    site.pages["/a"] = Reply(body.encode())
    table = opened(site.url + "/a#part")
    table.now()
    row = table.model.rows[site.url + "/a"]
    assert row.model_dump(include={"title", "format", "language", "url"}) == {
        "title": "On water",
        "format": "markdown",
        "language": "en",
        "url": site.url + "/a",
    }
    assert str(row.model_dump()["published"]) == "2026-05-01 10:00:00+00:00"
    assert row.model_dump()["text"].startswith("# On water\n\nA headrace is")
    assert "## Wheels" in row.model_dump()["text"]
    assert "Home" not in row.model_dump()["text"]


def test_an_answer_that_did_not_change_is_not_told_again(site: Site, opened: Any) -> None:
    """By its ETag, or by what it says."""
    url = site.page("/a", "one", headers={"ETag": '"1"'})
    other = site.page("/b", "two")
    table = opened(url, pages=[other])
    assert table.now() == {url: "one", other: "two"}
    table.until(lambda: site.times("/a") > 4 and site.times("/b") > 4)
    assert all(
        headers["if-none-match"] == '"1"' for path, headers in site.asked if path == "/a" and "if-none-match" in headers
    )
    assert sum("if-none-match" in headers for _, headers in site.asked) >= 3
    fetched = table.model.rows[url].model_dump()["fetched"]
    site.page("/a", "another", headers={"ETag": '"2"'})
    table.until(lambda: table.texts()[url] == "another")
    assert table.model.rows[url].model_dump()["fetched"] > fetched


def test_a_page_that_is_gone_is_deleted_when_that_is_certain(site: Site, opened: Any) -> None:
    """404 twice, or 410 once; a server in trouble deletes nothing."""
    one, two, three = (site.page(path, path) for path in ("/one", "/two", "/three"))
    table = opened(one, pages=[two, three])
    assert set(table.now()) == {one, two, three}
    site.pages["/one"], site.pages["/two"] = Reply(status=404), Reply(status=410)
    site.pages["/three"] = Reply(status=503)
    before = site.times("/one")
    table.until(lambda: set(table.texts()) == {three})
    assert site.times("/one") >= before + 2
    table.until(lambda: site.times("/three") >= 2)
    assert set(table.texts()) == {three}


def test_a_server_says_when_to_come_again(site: Site, opened: Any) -> None:
    """`max-age` and `Retry-After`: neither page is asked for again before."""
    fresh = site.page("/fresh", "fresh", headers={"Cache-Control": "public, max-age=3600"})
    busy = f"{site.url}/busy"
    site.pages["/busy"] = Reply(status=429, headers={"Retry-After": "3600"})
    beat = site.page("/beat", "beat")
    table = opened(fresh, pages=[busy, beat])
    table.until(lambda: site.times("/beat") > 8)
    assert [site.times("/fresh"), site.times("/busy")] == [1, 1]


def test_robots_are_obeyed(site: Site, opened: Any) -> None:
    site.pages["/robots.txt"] = Reply(
        b"User-agent: *\nDisallow: /private\nUser-agent: rude\nDisallow: /\n", type="text/plain"
    )
    open_, shut = site.page("/open", "open"), site.page("/private/a", "private")
    table = opened(open_, pages=[shut])
    assert table.now() == {open_: "open"}
    assert site.times("/private/a") == 0
    assert [letter.reason for letter in table.letters if "robots.txt" in letter.reason]
    assert opened(open_, user_agent="rude").now() == {}
    assert opened(shut, robots=False).now() == {shut: "private"}


def test_robots_that_cannot_be_read_forbid_all_for_now(site: Site, opened: Any) -> None:
    site.pages["/robots.txt"] = Reply(status=500)
    table = opened(site.page("/a", "a"))
    assert table.now() == {}
    assert site.times("/a") == 0


def test_a_host_is_asked_at_its_pace(site: Site, opened: Any) -> None:
    """A request every so often, whatever is due; a file that asks for a longer pause gets it."""
    site.pages["/robots.txt"] = Reply(b"User-agent: *\nCrawl-delay: 0.2\n", type="text/plain")
    urls = [site.page(f"/{number}", str(number)) for number in range(4)]
    began = time.monotonic()
    table = opened(urls[0], pages=urls[1:], delay="50ms", every="1h")
    table.until(lambda: len(table.texts()) == 4)
    assert time.monotonic() - began >= 0.6


def test_private_addresses_are_refused(site: Site) -> None:
    """As they are written, as what a name means, and as where a redirect leads."""
    for url in (
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://10.1.2.3/",
        "http://localhost:80/",
        "http://[::ffff:10.0.0.1]/",
    ):
        with pytest.raises(ConfigError, match="public address"):
            WebSource(url)
    # What the system's resolver takes for an address, and a name that means this machine.
    for host in ("0x7f.1", "0x7f000001", socket.gethostname()):
        with closing(WebSource(f"http://{host}:{site.port}/", delay=0, every="10ms").open(None, SCHEMA)) as reader:
            table = Table(reader)
            table.until(lambda table=table: bool(table.letters))
            assert "public address" in table.letters[0].reason
    assert site.asked == []


def test_a_redirect_to_a_private_address_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here one address of this machine counts as public, and another does not."""
    monkeypatch.setattr(web_addresses, "is_public", lambda address: address == "127.0.0.1")
    site.page("/inside", "not for you")
    site.pages["/here"] = Reply(status=302, headers={"Location": f"http://127.0.0.2:{site.port}/inside"})
    fetcher = Fetcher(WebOptions(f"{site.url}/here", delay=0), threading.Event())
    with closing(fetcher), pytest.raises(InputError, match=r"expected a public address, found that '127\.0\.0\.2'"):
        fetcher.get(f"{site.url}/here")


def test_a_name_is_resolved_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner cannot answer otherwise when the connection is made; the request still has the name."""
    real, answers = socket.getaddrinfo, ["127.0.0.1", "10.0.0.1"]

    def resolve(host: str, *args: Any, **options: Any) -> Any:
        return real(answers.pop(0) if host == "rebind.test" else host, *args, **options)

    monkeypatch.setattr(web_addresses, "is_public", lambda address: address == "127.0.0.1")
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    site.page("/a", "here")
    url = f"http://rebind.test:{site.port}/a"
    with closing(Fetcher(WebOptions(url, delay=0, robots=False), threading.Event())) as fetcher:
        assert b"here" in fetcher.get(url).body
    assert answers == ["10.0.0.1"]
    assert site.asked[0][1]["host"] == f"rebind.test:{site.port}"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:4700::1", True),
        ("10.0.0.1", False),
        ("172.16.9.9", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("240.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.215.14", True),
        ("64:ff9b::a00:1", False),
        ("2002:0a00:0001::1", False),
        ("localhost", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) == public


def test_redirects_are_followed_a_few_times(site: Site, opened: Any) -> None:
    """To where they may; secrets stay with their host."""
    there = site.page("/there", "there")
    site.pages["/here"] = Reply(status=301, headers={"Location": "/there"})
    site.pages["/round"] = Reply(status=302, headers={"Location": "/round"})
    site.pages["/file"] = Reply(status=302, headers={"Location": "file:///etc/passwd"})
    other = Site()
    try:
        away = other.page("/away", "away")
        site.pages["/leave"] = Reply(status=307, headers={"Location": away})
        here, round_, file, leave = (f"{site.url}/{name}" for name in ("here", "round", "file", "leave"))
        table = opened(here, pages=[round_, file, leave], headers={"Authorization": "secret"}, every="1h")
        assert table.now() == {here: "there", leave: "away"}
        assert table.model.rows[here].model_dump()["url"] == there
        assert sorted(letter.reason.partition(", found")[2][:20] for letter in table.letters) == [
            " 'file:///etc/passwd",
            " more than 5 redirec",
        ]
        assert all(headers["authorization"] == "secret" for path, headers in site.asked)
        assert all("authorization" not in headers for _, headers in other.asked)
    finally:
        other.close()


def drip(handler: BaseHTTPRequestHandler) -> None:
    """Says a byte now and then, without an end."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/plain")
    handler.end_headers()
    handler.close_connection = True
    for _ in range(200):
        handler.wfile.write(b"x")
        time.sleep(0.02)


def test_sizes_and_times_are_bounded(site: Site, opened: Any) -> None:
    """A page that says that it is too large, that is when it is unpacked, or that never ends."""
    fine = site.page("/fine", "fine")
    site.pages["/large"] = Reply(b"", headers={"Content-Length": "209715200"})
    packed = gzip.compress(b"\0" * 50_000_000)
    site.pages["/bomb"] = Reply(packed, headers={"Content-Encoding": "gzip"})
    site.pages["/slow"] = drip
    large, bomb, slow = (f"{site.url}/{name}" for name in ("large", "bomb", "slow"))
    table = opened(fine, pages=[large, bomb, slow], every="1h", timeout="300ms", most_bytes=1_000_000)
    assert table.now() == {fine: "fine"}
    assert sorted(letter.reason.rpartition("found ")[2] for letter in table.letters) == ["209715200", "more"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (bytes(range(256)) * 9, "binary data"),
        ("<p>caf\u00e9</p>".encode("latin-1"), "UTF-8"),
        (b"<div>" * 3000, "nested"),
    ],
)
def test_a_page_that_is_no_text_is_set_aside_once(site: Site, opened: Any, body: bytes, reason: str) -> None:
    """Its row goes; others stay."""
    url, other = site.page("/a", "fine"), site.page("/b", "b")
    table = opened(url, pages=[other])
    assert table.now() == {url: "fine", other: "b"}
    site.pages["/a"] = Reply(body, type="text/html")
    table.until(lambda: set(table.texts()) == {other})
    asked = site.times("/a")
    table.until(lambda: site.times("/a") > asked + 2)
    assert len(table.letters) == 1
    assert reason in table.letters[0].reason


def test_charsets_and_types(site: Site, opened: Any) -> None:
    """What the header says, what the page says, and text that is no HTML."""
    site.pages["/header"] = Reply("<p>Z\u00fcrich</p>".encode("latin-1"), type="text/html; charset=iso-8859-1")
    site.pages["/meta"] = Reply(
        '<meta charset="windows-1252"><p>\u201cZ\u00fcrich\u201d</p>'.encode("cp1252"), type="text/html"
    )
    site.pages["/x.md"] = Reply(b"# Title\n\ntext", type="text/plain")
    site.pages["/y.py"] = Reply(b"x = 1\n", type="application/octet-stream")
    urls = [f"{site.url}/{name}" for name in ("header", "meta", "x.md", "y.py")]
    table = opened(urls[0], pages=urls[1:])
    found = table.now()
    assert [found[url] for url in urls] == ["Z\u00fcrich", "\u201cZ\u00fcrich\u201d", "# Title\n\ntext", "x = 1\n"]
    formats = {key: row.model_dump()["format"] for key, row in table.model.rows.items()}
    assert [formats[url] for url in urls] == ["markdown", "markdown", "markdown", "python"]


def feed(site: Site, *entries: tuple[str, str]) -> Reply:
    items = "".join(
        f"<entry><title>{path[1:]}</title><link href='{path}'/><id>{path}</id><updated>{when}</updated></entry>"
        for path, when in entries
    )
    return Reply(
        f"<feed xmlns='http://www.w3.org/2005/Atom'><title>f</title>{items}</feed>".encode(),
        type="application/atom+xml",
    )


def test_a_feed_names_pages(site: Site, opened: Any) -> None:
    """What it names no more stays, the newest of all are kept, and their dates are the feed's."""
    one, two, three = (site.page(path, path) for path in ("/one", "/two", "/three"))
    site.pages["/feed"] = feed(site, ("/two", "2026-02-01T00:00:00Z"), ("/one", "2026-01-01T00:00:00Z"))
    table = opened(f"{site.url}/feed", feed=True, most_pages=2)
    assert set(table.now()) == {one, two}
    assert str(table.model.rows[one].model_dump()["published"]) == "2026-01-01 00:00:00+00:00"
    site.pages["/feed"] = feed(site, ("/three", "2026-03-01T00:00:00Z"))
    table.until(lambda: set(table.texts()) == {two, three})
    later = opened(f"{site.url}/feed", table.position, feed=True, most_pages=2)
    assert later.now() == {}, "nothing changed since"


def test_a_feed_that_is_none_is_said(site: Site, opened: Any) -> None:
    """It may be there later, so it is asked again."""
    site.pages["/feed"] = Reply(b"<html>no feed", type="text/html")
    table = opened(f"{site.url}/feed", feed=True)
    with pytest.raises(StorageError, match="expected a feed"):
        table.reader.read(PATIENCE)
    assert table.reader.read(0) is None


def test_maps_of_sitemaps(site: Site, opened: Any) -> None:
    """Packed ones too; what did not change by its own account is not asked for again."""
    space = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'
    one = site.page("/one", "one")
    urls = f"<urlset {space}><url><loc>{one}</loc><lastmod>2026-01-01</lastmod></url><url><loc>ftp://x/</loc></url></urlset>"
    site.pages["/map.xml.gz"] = Reply(gzip.compress(urls.encode()), type="application/x-gzip")
    index = f"<sitemapindex {space}><sitemap><loc>{site.url}/map.xml.gz</loc></sitemap></sitemapindex>"
    site.pages["/index.xml"] = Reply(index.encode(), type="application/xml")
    table = opened(f"{site.url}/index.xml", sitemap=True)
    assert table.now() == {one: "one"}
    asked = site.times("/index.xml")
    table.until(lambda: site.times("/index.xml") > asked + 4)
    assert site.times("/one") <= 2
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
    )
    site.pages["/index.xml"] = Reply(f"{bomb}]><urlset {space}>&j;</urlset>".encode(), type="application/xml")
    again = opened(f"{site.url}/index.xml", sitemap=True)
    with pytest.raises(StorageError, match="broken XML"):
        again.reader.read(PATIENCE)


def test_positions_hold_no_secrets_and_are_small(site: Site, opened: Any) -> None:
    url = site.page("/a?token=hidden", "a", headers={"ETag": '"e"'})
    source = WebSource(url, **QUICK, headers={"Authorization": "secret"})
    assert "hidden" not in source.name
    assert "secret" not in repr(source)
    table = opened(url, headers={"Authorization": "secret"})
    table.now()
    assert "secret" not in json.dumps(table.position)
    assert len(json.dumps(table.position)) < 400


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("https://user:secret@example.org/", {}, "no password"),
        ("https://example.org/", {"fed": True}, "did you mean 'feed'"),
        ("https://example.org/", {"feed": True, "sitemap": True}, "both"),
        ("https://example.org/", {"pages": ["ftp://x/"]}, "https://"),
        ("https://example.org/", {"every": "soon"}, "duration"),
        ("https://example.org/", {"headers": {"A": "x\r\nB: y"}}, "one line"),
    ],
)
def test_what_cannot_be_asked_for_is_said(url: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        WebSource(url, **options)
    assert "secret" not in str(raised.value)
