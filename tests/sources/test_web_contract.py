"""The web source under the contract that every source of a table is held to: a sitemap of a site that changes."""

from collections.abc import Iterator

import pytest
from web_site import Reply, Site

from headrace.document import Document, TableSchema
from headrace.files import Page
from headrace.sources.web import WebSource
from headrace.testing.tables import TableSourceContract


class SiteWorld:
    """Plain pages, and a sitemap that names them."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._keys: dict[str, None] = {}
        self._map()
        # Asked for more often than a reader waits, so that a reader that heard of nothing has looked.
        options = {"sitemap": True, "every": "10ms", "delay": 0, "allow_private": True, "robots": False}
        self.source = WebSource(f"{site.url}/sitemap.xml", **options)
        self.schema = TableSchema.of("pages", [Page], key="id")

    def put(self, key: str, text: str) -> str:
        etag = {"ETag": f'"{text}"'}
        self._site.pages[f"/{key}"] = Reply(text.encode(), type="text/plain; charset=utf-8", headers=etag)
        self._keys[key] = None
        self._map()
        return f"{self._site.url}/{key}"

    def delete(self, key: str) -> None:
        del self._site.pages[f"/{key}"], self._keys[key]
        self._map()

    def text(self, document: Document) -> str:
        assert isinstance(document, Page)
        return document.text

    def _map(self) -> None:
        urls = "".join(f"<url><loc>{self._site.url}/{key}</loc></url>" for key in self._keys)
        space = "http://www.sitemaps.org/schemas/sitemap/0.9"
        body = f'<?xml version="1.0" encoding="UTF-8"?><urlset xmlns="{space}">{urls}</urlset>'
        self._site.pages["/sitemap.xml"] = Reply(body.encode(), type="application/xml")


class TestWeb(TableSourceContract):
    @pytest.fixture
    def world(self) -> Iterator[SiteWorld]:
        site = Site()
        yield SiteWorld(site)
        site.close()
