"""Postgres as a source of a table keeps the contract of tables' sources, on a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgres_models import Article, World

from headrace.testing.tables import TableSourceContract
from services.postgres import Postgres


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def world(postgres: Postgres) -> Iterator[World]:
    made = World(postgres, Article)
    try:
        yield made
    finally:
        made.close()


class TestPostgres(TableSourceContract):
    """A table with a text key."""

    @pytest.fixture
    def world(self, world: World) -> World:
        return world
