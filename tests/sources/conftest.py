"""One broker of each kind for all tests that do not harm it."""

from collections.abc import Iterator

import pytest

from services.kafka import Broker, Kraft, Tansu, java_is_here


@pytest.fixture(scope="session")
def tansu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Tansu(tmp_path_factory.mktemp("tansu"))
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


@pytest.fixture(scope="session")
def kraft(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    assert java_is_here(), "needs Java, and Maven for the jars; tests/services/install.sh installs them"
    broker = Kraft(tmp_path_factory.mktemp("kraft"), secure=True)
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


@pytest.fixture(
    params=[pytest.param("tansu", id="tansu"), pytest.param("kraft", id="kraft", marks=pytest.mark.services)]
)
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each of the brokers: Tansu in `make test`, Apache Kafka in `make test-services`."""
    found: Broker = request.getfixturevalue(request.param)
    return found
