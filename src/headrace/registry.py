"""URL scheme -> connector: found in one table, imported on first use.

A connector is named by its kind ("source", "online", "runner", …) and the scheme of its URL, and is stored as
an import string, so that nothing is imported until a URL asks for it: a program that reads files never loads
a Kafka client. What is missing is answered with the line that installs it.

There are three ways into the table and they end in the same place: the list below (our own), `register` (an
application's), and the entry points of installed packages in the group `headrace.connectors`:

    [project.entry-points."headrace.connectors"]
    "source.pulsar" = "headrace_pulsar:PulsarSource"

A connector's target is called as `target(url, **options)`. What is registered by hand goes before an entry
point of the same name, which is then logged and left out.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from headrace.errors import ConfigError, MissingDependencyError, nearest

GROUP = "headrace.connectors"

_log = logging.getLogger(__name__)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True)
class Connector:
    """One line of the table.

    Attributes:
        kind: What it is for: "source", "online", "runner", …
        scheme: The scheme of the URLs that it serves, in lower case.
        target: "module:attr", what is imported and called.
        extra: The extra that brings its packages, or None if it needs none.
        note: A few words for a list of connectors.
        package: The distribution that has the extra.
    """

    kind: str
    scheme: str
    target: str
    extra: str | None = None
    note: str = ""
    package: str = "headrace"

    @property
    def install(self) -> str:
        """The line that installs what it needs."""
        return f'pip install "{self.package}[{self.extra}]"' if self.extra else f'pip install "{self.package}"'

    def load(self) -> Callable[..., Any]:
        """Import the target.

        Raises:
            MissingDependencyError: It needs a package that is not installed.
            ConfigError: The target itself is not there, or is not callable.
        """
        module_name, _, attr = self.target.partition(":")
        where = f"the {self.kind} connector {self.scheme!r} ({self.target})"
        try:
            found: Any = importlib.import_module(module_name)
        except ImportError as error:
            missing = error.name or ""
            # A module of the connector's own package that is not there is a wrong target, not a missing
            # dependency.
            if not missing or missing.partition(".")[0] == module_name.partition(".")[0]:
                raise ConfigError(f"{where} cannot be imported: {error}") from error
            raise MissingDependencyError(
                f"{where} needs the package {missing!r}, which cannot be imported ({error}); "
                f"install it with: {self.install if self.extra else f'pip install {missing}'}"
            ) from error
        for part in attr.split("."):
            if not hasattr(found, part):
                raise ConfigError(f"{where}: {module_name} has no {attr!r}; mend the registered target")
            found = getattr(found, part)
        if not callable(found):
            raise ConfigError(f"{where}: expected something to call as target(url, **options), found {found!r}")
        return found  # type: ignore[no-any-return]


class Registry:
    """A table of connectors; `DEFAULT` is the one that applications use.

    Args:
        connectors: What it holds from the start.
        group: The entry-point group that is read on the first look-up; None for no entry points.
    """

    def __init__(self, connectors: Iterable[Connector] = (), group: str | None = GROUP) -> None:
        self._table = {(each.kind, each.scheme): each for each in connectors}
        self._group = group
        self._lock = threading.RLock()

    def register(
        self,
        kind: str,
        scheme: str,
        target: str,
        extra: str | None = None,
        note: str = "",
        package: str = "headrace",
    ) -> None:
        """Add a connector; the same one twice is fine, another target for the same name is not.

        Raises:
            ConfigError: The scheme or the target cannot be one, or the name is taken.
        """
        if not _SCHEME.fullmatch(scheme):
            raise ConfigError(f"expected a URL scheme such as 'kafka', found {scheme!r}")
        if not _TARGET.fullmatch(target):
            raise ConfigError(f"expected a target such as 'package.module:Name', found {target!r}")
        new = Connector(kind, scheme.lower(), target, extra, note, package)
        with self._lock:
            old = self._table.setdefault((kind, new.scheme), new)
        if old.target != target:
            raise ConfigError(
                f"the {kind} connector {scheme!r} is already {old.target}, so it cannot be {target}; "
                "register yours under a scheme of its own"
            )

    def connectors(self, kind: str | None = None) -> list[Connector]:
        """All connectors, or all of a kind, in order of their names."""
        self._read_entry_points()
        with self._lock:
            return [self._table[name] for name in sorted(self._table) if kind in (None, name[0])]

    def find(self, kind: str, url: str) -> Connector:
        """The connector for a URL ("redis://host/0"), or for a bare scheme ("local").

        Raises:
            ConfigError: Not a URL, or nothing is registered for its scheme.
        """
        scheme, colon, _ = url.partition(":")
        if not _SCHEME.fullmatch(scheme):
            hint = f"; for a file, write {'file://' if url.startswith('/') else 'file:'}{url}" if not colon else ""
            raise ConfigError(f"expected a URL that begins with a scheme such as 'file:', found {url!r}{hint}")
        known = {each.scheme: each for each in self.connectors(kind)}
        if not known:
            kinds = {each.kind for each in self.connectors()}
            raise ConfigError(f"no connector of the kind {kind!r} is registered; {nearest(kind, kinds)}")
        connector = known.get(scheme.lower())
        if connector is None:
            where = shown_url(url)
            raise ConfigError(f"no {kind} connector serves {scheme!r} (in {where!r}); {nearest(scheme, known)}")
        return connector

    def create(self, kind: str, url: str, **options: Any) -> Any:
        """Import the connector for a URL, on first use, and call it: `target(url, **options)`."""
        return self.find(kind, url).load()(url, **options)

    def _read_entry_points(self) -> None:
        """Take in the entry points, once."""
        with self._lock:
            if self._group is None:
                return
            group, self._group = self._group, None
            for point in importlib.metadata.entry_points(group=group):
                kind, dot, scheme = point.name.partition(".")
                package = point.dist.name if point.dist else point.module.partition(".")[0]
                target = f"{point.module}:{point.attr}"
                try:
                    if not dot:
                        raise ConfigError(f"expected a name such as 'source.kafka', found {point.name!r}")
                    self.register(kind, scheme, target, next(iter(point.extras), None), package=package)
                except ConfigError as error:
                    # One broken package must not take away every other connector.
                    _log.warning("the connector %r of the package %r is left out: %s", point.name, package, error)


def shown_url(url: str) -> str:
    """A URL as it may be shown to anyone: what stands before the host may hold a password, and so may a query."""
    scheme, slashes, rest = url.partition("://")
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}" if slashes else url.partition("?")[0]


OURS = (
    Connector("source", "file", "headrace.sources.files:FileSource", note="NDJSON, JSON, CSV and Parquet files"),
    Connector("source", "kafka", "headrace.sources.kafka:KafkaSource", "kafka", note="Kafka, Redpanda and their like"),
    Connector("sink", "kafka", "headrace.sources.kafka_writer:KafkaSink", "kafka", note="a topic, by key"),
    *(
        Connector("table", scheme, f"headrace.sources.{target}", extra, note=note)
        for schemes, target, extra, note in (
            (("postgres", "postgresql"), "postgres:PostgresSource", "postgres", "Postgres, by logical replication"),
            (("mongodb", "mongodb+srv"), "mongodb:MongoSource", "mongodb", "MongoDB, by change streams"),
            (("rabbitmq", "rabbitmqs", "amqp", "amqps"), "rabbitmq:RabbitSource", "rabbitmq", "queues and streams"),
            (("kafka",), "kafka_table:KafkaTable", "kafka", "a topic of changes: Debezium's, or rows by key"),
            (("dir",), "directory:DirectorySource", "files", "the files of a directory, watched"),
            (("https", "http"), "web:WebSource", "web", "pages, feeds and sitemaps, polled"),
            (("search",), "web_search:SearchSource", "web", "what a web search finds"),
        )
        for scheme in schemes
    ),
    *(
        Connector("vectors", scheme, f"headrace.stores.vectors.{target}", extra, note=note)
        for schemes, target, extra, note in (
            (("memory",), "memory:MemoryVectors", None, "exact, in this process"),
            (("local",), "local:LocalVectors", None, "incremental cells, in a process beside this one"),
            (("edge",), "edge:EdgeVectors", "edge", "Qdrant Edge, in a process beside this one"),
            (("qdrant",), "qdrant:QdrantStore", "qdrant", "a Qdrant server"),
            (("postgres", "postgresql"), "pgvector:PgvectorStore", "pgvector", "Postgres with pgvector"),
            (("milvus",), "milvus:MilvusStore", "milvus", "Milvus, or a file of Milvus Lite"),
            (("pinecone",), "pinecone:PineconeStore", "pinecone", "a Pinecone index"),
        )
        for scheme in schemes
    ),
    *(
        Connector("embed", scheme, f"headrace.documents.embed.{target}", extra, note=note)
        for scheme, target, extra, note in (
            ("minilm", "minilm:MiniLM", "minilm", "all-MiniLM-L6-v2, here"),
            ("static", "static:StaticModel", "minilm", "a table of word vectors made from it"),
            ("hash", "hashed:HashEmbedder", None, "words, hashed: for tests"),
            ("openai", "openai:OpenAIEmbedder", None, "any server with /v1/embeddings"),
            (
                "sentence-transformers",
                "sentence_transformers:SentenceTransformerEmbedder",
                "sentence-transformers",
                "any model of that library",
            ),
            ("fastembed", "fastembed:FastEmbedEmbedder", "fastembed", "any model of that library"),
        )
    ),
    Connector("online", "memory", "headrace.stores.online.memory:MemoryStore", note="in this process"),
    *(
        Connector("online", scheme, "headrace.stores.online.redis:RedisStore", "redis", note="Redis and Valkey")
        for server in ("redis", "rediss", "valkey", "valkeys")
        for scheme in (server, f"{server}+cluster", f"{server}+sentinel")
    ),
    Connector("runner", "local", "headrace.runners.local:LocalRunner", note="one process, in threads"),
    Connector("runner", "replica", "headrace.runners.replica:ReplicaRunner", note="no engine: reads the online store"),
    Connector("runner", "bytewax", "headrace.runners.bytewax:BytewaxRunner", "bytewax", note="a cluster of processes"),
)

DEFAULT = Registry(OURS)
register = DEFAULT.register
create = DEFAULT.create
