"""Schema registries for tests: a small one of ours, and Apicurio's (Java and Maven), both with Confluent's API.

`Registry` is an HTTP server on a free port of 127.0.0.1 that does what clients of such a registry need: subjects with
numbered versions, schemas under ids that are the same for the same schema, references, and Confluent's error codes. It
can be told to be down, slow or in need of a password, and counts what it was asked. `Apicurio` is the real thing for
`make test-services`: its Maven artifact is a Quarkus application that keeps everything in memory and is ready in about
five seconds. Version 2.6 is the last that runs on Java 17.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tarfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

TYPE = "application/vnd.schemaregistry.v1+json"
APICURIO = "io.apicurio:apicurio-registry-app:2.6.13.Final:tar.gz:all"
APICURIO_HOME = Path(os.environ.get("HEADRACE_APICURIO", Path.home() / ".cache" / "headrace" / "apicurio-2.6.13"))
PATIENCE = 90.0

_SUBJECT = re.compile(r"/subjects/([^/]+)")
_VERSIONS = re.compile(r"/subjects/([^/]+)/versions")
_VERSION = re.compile(r"/subjects/([^/]+)/versions/([^/]+)")
_ID = re.compile(r"/schemas/ids/([^/]+)")


class RefusalError(Exception):
    """An answer with one of Confluent's error codes."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Registry:
    """A schema registry in this process.

    Attributes:
        asked: How often each path was asked for.
        failing: A status that is answered to everything, or None.
        hanging: While it is clear, requests wait.
        userinfo: "user:password" that requests must carry, if any.
        elsewhere: Where everything is redirected to, if anywhere.
    """

    def __init__(self, port: int = 0) -> None:
        self.asked: Counter[str] = Counter()
        self.failing: int | None = None
        self.hanging = threading.Event()
        self.hanging.set()
        self.userinfo: str | None = None
        self.elsewhere: str | None = None
        self.prefix = ""
        self._lock = threading.Lock()
        self._schemas: dict[int, dict[str, Any]] = {}
        self._subjects: dict[str, list[int]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.port: int = self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    def close(self) -> None:
        self.hanging.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def register(
        self, subject: str, schema: Any, kind: str = "AVRO", references: list[dict[str, Any]] | None = None
    ) -> int:
        """A schema's id, over HTTP as a producer gets it."""
        return register(self.url, subject, schema, kind, references)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """What it says to a request; a `RefusalError` is raised."""
        with self._lock:
            if found := _ID.fullmatch(path):
                return self._by_id(found[1])
            if found := _VERSION.fullmatch(path):
                return self._by_version(unquote(found[1]), unquote(found[2]))
            if found := _VERSIONS.fullmatch(path):
                subject = unquote(found[1])
                return self._register(subject, body) if method == "POST" else self._versions(subject)
            if (found := _SUBJECT.fullmatch(path)) and method == "POST":
                return self._look_up(unquote(found[1]), body)
            if path == "/subjects":
                return sorted(self._subjects)
        raise RefusalError(404, 404, "HTTP 404 Not Found")

    def _by_id(self, text: str) -> Any:
        if not text.isdecimal() or int(text) not in self._schemas:
            raise RefusalError(404, 40403, f"Schema {text} not found")
        return _without(self._schemas[int(text)], "AVRO")

    def _versions(self, subject: str) -> list[int]:
        if subject not in self._subjects:
            raise RefusalError(404, 40401, f"Subject '{subject}' not found.")
        return list(range(1, len(self._subjects[subject]) + 1))

    def _by_version(self, subject: str, version: str) -> Any:
        versions = self._versions(subject)
        number = versions[-1] if version == "latest" else int(version) if version.isdecimal() else 0
        if number not in versions:
            raise RefusalError(404, 40402, f"Version {version} not found.")
        found = self._subjects[subject][number - 1]
        return {"subject": subject, "version": number, "id": found} | _without(self._schemas[found], "AVRO")

    def _register(self, subject: str, body: dict[str, Any]) -> Any:
        schema = self._checked(body)
        known = [number for number, each in self._schemas.items() if each == schema]
        number = known[0] if known else len(self._schemas) + 1
        self._schemas[number] = schema
        versions = self._subjects.setdefault(subject, [])
        if number not in versions:
            versions.append(number)
        return {"id": number, "version": versions.index(number) + 1} | _without(schema, "AVRO")

    def _look_up(self, subject: str, body: dict[str, Any]) -> Any:
        schema = self._checked(body)
        self._versions(subject)
        for place, number in enumerate(self._subjects[subject]):
            if self._schemas[number] == schema:
                return {"subject": subject, "version": place + 1, "id": number} | _without(schema, "AVRO")
        raise RefusalError(404, 40403, "Schema not found")

    def _checked(self, body: dict[str, Any]) -> dict[str, Any]:
        kind, text = body.get("schemaType", "AVRO"), body.get("schema")
        if not isinstance(text, str) or kind not in ("AVRO", "PROTOBUF", "JSON"):
            raise RefusalError(422, 42201, "Invalid schema")
        # It is no parser: tests register broken ones, too.
        if kind != "PROTOBUF" and text.lstrip()[:1] not in ("{", "[", '"', "t", "f"):
            raise RefusalError(422, 42201, "Invalid schema")
        references = body.get("references") or []
        for each in references:
            self._by_version(each["subject"], str(each["version"]))
        return {"schemaType": kind, "schema": text, "references": references}


def _without(schema: dict[str, Any], kind: str) -> dict[str, Any]:
    """A schema as it is answered: its type only if it is not Avro, its references only if it has any."""
    return {key: value for key, value in schema.items() if value and (key, value) != ("schemaType", kind)}


def _handler(registry: Registry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = PATIENCE

        def do_GET(self) -> None:
            self._reply()

        def do_POST(self) -> None:
            self._reply()

        def _reply(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = urlsplit(self.path).path
            registry.asked[path.removeprefix(registry.prefix)] += 1
            registry.hanging.wait(PATIENCE)
            if registry.elsewhere is not None:
                self.send_response(307)
                self.send_header("Location", registry.elsewhere + self.path)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            try:
                status, answer = 200, self._answer(path, text)
            except RefusalError as refusal:
                status, answer = refusal.status, {"error_code": refusal.code, "message": str(refusal)}
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _answer(self, path: str, text: bytes) -> Any:
            if registry.failing is not None:
                raise RefusalError(registry.failing, registry.failing * 100 + 1, "Error in the backend data store")
            if registry.userinfo is not None:
                wanted = "Basic " + base64.b64encode(registry.userinfo.encode()).decode()
                if self.headers.get("Authorization") != wanted:
                    raise RefusalError(401, 401, "Unauthorized")
            if not path.startswith(registry.prefix):
                raise RefusalError(404, 404, "HTTP 404 Not Found")
            return registry.answer(self.command, path.removeprefix(registry.prefix), json.loads(text) if text else {})

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: pytest shows what a test prints."""

    return Handler


def register(
    url: str, subject: str, schema: Any, kind: str = "AVRO", references: list[dict[str, Any]] | None = None
) -> int:
    """Registers a schema with any registry: its id."""
    text = schema if isinstance(schema, str) else json.dumps(schema)
    body: dict[str, Any] = {"schema": text, "schemaType": kind}
    if references:
        body["references"] = references
    answer = httpx.post(f"{url}/subjects/{subject}/versions", json=body, timeout=PATIENCE)
    answer.raise_for_status()
    number: int = answer.json()["id"]
    return number


class Apicurio:
    """Apicurio Registry, in a Java process."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
        self._log = (folder / "apicurio.log").open("wb")
        settings = ["-Xmx384m", "-XX:+UseSerialGC", "-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={port}"]
        jar = next(install().glob("*-runner.jar"))
        self._process = subprocess.Popen(
            ["java", *settings, "-jar", str(jar)],
            cwd=folder,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + PATIENCE
        try:
            while not self._ready():
                assert self._process.poll() is None, f"Apicurio ended: {self._said()}"
                assert time.monotonic() < deadline, f"Apicurio was not ready within {PATIENCE} s: {self._said()}"
                time.sleep(0.1)
        except BaseException:
            self.close()
            raise

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/subjects", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def _said(self) -> str:
        return Path(self._log.name).read_text(errors="replace")[-2000:]

    def register(
        self, subject: str, schema: Any, kind: str = "AVRO", references: list[dict[str, Any]] | None = None
    ) -> int:
        return register(self.url, subject, schema, kind, references)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        self._log.close()

    def __enter__(self) -> Apicurio:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def install() -> Path:
    """The folder with Apicurio's program, fetched by Maven the first time."""
    if not any(APICURIO_HOME.glob("*-runner.jar")):
        assert shutil.which("mvn"), "Apicurio is fetched by Maven, which is not installed"
        parts = APICURIO_HOME.with_suffix(".parts")
        parts.mkdir(parents=True, exist_ok=True)
        goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
        options = [f"-Dartifact={APICURIO}", f"-DoutputDirectory={parts}"]
        subprocess.run(["mvn", "-q", "-B", goal, *options], check=True, timeout=900)
        with tarfile.open(next(parts.glob("*.tar.gz"))) as archive:
            archive.extractall(parts, filter="data")
        for each in parts.glob("*.tar.gz"):
            each.unlink()
        shutil.rmtree(APICURIO_HOME, ignore_errors=True)
        parts.rename(APICURIO_HOME)
    return APICURIO_HOME
