"""Clusters, sentinels, Debian's Redis and TLS: servers that take longer to start, or that no wheel brings."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest
from redis_shop import PATIENCE, answers, engine, reader, total, until

from headrace.errors import StorageError
from headrace.testing.stores import START, Engine, sales
from services.redis import Cluster, DebianRedis, Sentinels, free_port

pytestmark = pytest.mark.services


def test_a_node_of_a_cluster_is_killed(tmp_path: Path) -> None:
    """The stream waits for it; what is then read is right of every key."""
    with Cluster(tmp_path / "c") as cluster, engine(cluster.url) as one:
        keys = [f"s{n}" for n in range(200)]
        one.take(sales([{"shop": key, "at": START} for key in keys]))
        for node in cluster.nodes:
            node.kill()
            thread = threading.Thread(target=one.take, args=(sales([{"shop": key, "at": START} for key in keys]),))
            thread.start()
            until(lambda: one.store.problem() is not None, "the problem is told")  # type: ignore[attr-defined]
            node.start()
            thread.join(PATIENCE)
            assert not thread.is_alive()
        until(lambda: _reads(one, keys), "the cluster answers")
        assert [total(one.store, key) for key in keys] == [4.0] * 200


def _reads(one: Engine, keys: list[str]) -> bool:
    try:
        one.store.read_many("sales", keys, START)
    except StorageError:
        return False
    return True


def test_slots_that_move_are_followed(tmp_path: Path) -> None:
    """A slot goes to another node with its keys; neither writes nor reads notice."""
    with Cluster(tmp_path / "c") as cluster, engine(cluster.url, expires=False) as one:
        one.take(sales([{"at": START}]))
        assert total(one.store) == 1.0
        (key,) = {key for node in cluster.nodes for key in node.client.keys("hr:shop:sales:*")}
        holder = next(node for node in cluster.nodes if node.client.keys("hr:shop:sales:*"))
        other = next(node for node in cluster.nodes if node is not holder)
        slot = str(holder.client.execute_command("CLUSTER", "KEYSLOT", key))
        ids = {node: node.client.execute_command("CLUSTER", "MYID").decode() for node in cluster.nodes}
        other.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[holder])
        holder.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[other])
        holder.client.execute_command("MIGRATE", "127.0.0.1", str(other.port), key, "0", "5000")
        for node in (other, holder, *cluster.nodes):
            node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[other])
        assert total(one.store) == 1.0
        one.take(sales([{"at": START}]))
        assert total(one.store) == 2.0


def test_sentinels_put_a_copy_in_the_servers_place(tmp_path: Path) -> None:
    """Both reads and writes find it."""
    with Sentinels(tmp_path / "s") as servers, engine(servers.url) as one, reader(servers.url) as store:
        one.take(sales([{"at": START}]))
        assert total(store) == 1.0
        servers.first.kill()
        one.take(sales([{"at": START}]))
        until(lambda: answers(store), "reads find the copy")
        assert total(store) == 2.0
        assert servers.second.client.info("replication")["role"] == "master"


@pytest.mark.parametrize("save", ["aof", ""])
def test_debians_redis_is_killed_and_started_again(tmp_path: Path, save: str) -> None:
    """Redis 7, with and without files."""
    with DebianRedis(tmp_path / "r", save=save) as server, engine(server.url) as one:
        one.take(sales([{"at": START}]))
        server.restart()
        one.take(sales([{"at": START}]))
        assert total(one.store) == 2.0


def test_tls(tmp_path: Path) -> None:
    """The server's certificate is checked, by name too."""
    files = _certificate(tmp_path)
    port = free_port()
    options = {"tls-port": str(port), "tls-cert-file": files["cert"], "tls-key-file": files["key"]}
    options |= {"tls-ca-cert-file": files["cert"], "tls-auth-clients": "no"}
    with DebianRedis(tmp_path / "r", options=options):
        url = f"rediss://127.0.0.1:{port}/0"
        with engine(f"{url}?ca={files['cert']}") as one:
            one.take(sales([{"at": START}]))
            assert total(one.store) == 1.0
        with reader(url) as store, pytest.raises(StorageError, match="certificate verify failed"):
            total(store)


def _certificate(folder: Path) -> dict[str, str]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return {"cert": str(cert), "key": str(key)}
