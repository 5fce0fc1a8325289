"""`headrace export`: a collection's documents as a data set to train on, or as a snapshot."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from headrace.cli.apps import load_app
from headrace.errors import InputError, MissingDependencyError

ABOUT = "Write a collection's documents as a data set to train on: JSONL, with a manifest."
MORE = """\
examples:
  headrace export myapp:app --collection library --out ./dataset
  headrace export myapp:app --collection library --out ./dataset --format instruction --test 0.05 --seed 7
  headrace export myapp:app --collection library --out ./then --at 2026-01-02T03:04:05Z
  headrace export myapp:app --collection library --out ./clean --documents-only parquet

It reads beside a running server, without stopping it, and starts nothing: no source, no model, no index.
The same version makes the same bytes. --out must not be there yet, or be empty.

Without --model, a title or heading is asked for and its text is the answer. With it, a model writes the
instructions: any OpenAI-compatible endpoint, from OPENAI_BASE_URL and OPENAI_API_KEY.
Nothing is taken out for privacy: what is in the documents is in the data set.
"""
_DEFAULT_DATA = "headrace-data"


def add(commands: Any, described: Any) -> None:
    """Adds the command.

    Args:
        commands: What `add_subparsers` returned.
        described: Gives a command its description and epilog.
    """
    made = described(commands.add_parser("export", help="documents as a data set to train on"), ABOUT, MORE)
    made.add_argument("app", metavar="MODULE:APP", help="the App object, as in myapp:app")
    made.add_argument("--collection", required=True, metavar="NAME", help="whose documents")
    made.add_argument("--data", default=_DEFAULT_DATA, metavar="DIR", help="where state is kept (default: %(default)s)")
    made.add_argument("--out", required=True, metavar="DIR", help="a new or empty directory")
    when = made.add_mutually_exclusive_group()
    when.add_argument("--version", type=int, metavar="N", help="of the table (default: the newest)")
    when.add_argument("--at", metavar="TIME", help="the version of that time, as 2026-01-02T03:04:05Z")
    _recipe(made.add_argument_group("the data set"))
    model = made.add_argument_group("instructions by a model")
    model.add_argument("--model", metavar="NAME", help="the model's name at the endpoint")
    model.add_argument("--concurrency", type=int, default=4, metavar="N", help="requests at a time (default: 4)")
    model.add_argument("--cache", metavar="FILE", help="where answers are kept (default: in the user's cache)")
    only = made.add_argument_group("a snapshot instead of a data set").add_mutually_exclusive_group()
    for what in ("documents", "chunks"):
        only.add_argument(f"--{what}-only", choices=("parquet", "delta"), help=f"the {what}, as they are")
    made.set_defaults(call=run)


def _recipe(group: Any) -> None:
    group.add_argument(
        "--format",
        default="chat",
        choices=("chat", "instruction", "completion", "text"),
        help="of a line (default: chat)",
    )
    group.add_argument(
        "--test", type=float, default=0.1, metavar="PART", help="of documents, to test with (default: 0.1)"
    )
    group.add_argument("--seed", type=int, default=1, metavar="N", help="another divides them otherwise (default: 1)")
    group.add_argument(
        "--near", type=float, default=0.85, metavar="S", help="so similar is the same; 0 keeps all (default: 0.85)"
    )
    group.add_argument("--min-tokens", type=int, default=16, metavar="N", help="of an answer (default: 16)")
    group.add_argument("--max-tokens", type=int, default=1024, metavar="N", help="of an answer (default: 1024)")
    group.add_argument("--tokenizer", metavar="FILE", help="a tokenizer.json to count by (default: bytes / 4)")
    group.add_argument(
        "--template",
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="how a passage is asked for; again for others",
    )
    group.add_argument("--system", default="", metavar="TEXT", help="the system message of each chat")
    group.add_argument("--trusted-only", action="store_true", help="only documents of the operator's own")
    group.add_argument("--where", metavar="JSON", help="""only documents that pass, as '{"lang": "en"}'""")


def run(parsed: argparse.Namespace) -> int:
    """Exports; 0, or an error."""
    app = load_app(parsed.app)
    collection = app.collection_of(parsed.collection)
    data, out = Path(parsed.data), Path(parsed.out)
    given: dict[str, Any] = {"version": parsed.version, "at": None if parsed.at is None else _time(parsed.at)}
    where = None if parsed.where is None else _condition(parsed.where)
    what = "documents" if parsed.documents_only else "chunks" if parsed.chunks_only else None
    if what is not None:
        return _snapshot(app, collection, data, out, what, {**given, "where": where}, parsed)
    from headrace.documents.dataset import Recipe
    from headrace.serving.export import export

    recipe = Recipe(
        parsed.format,
        parsed.test,
        parsed.seed,
        parsed.near or None,
        parsed.min_tokens,
        parsed.max_tokens,
        parsed.trusted_only,
        where,
        _templates(parsed.template),
        parsed.system,
    )
    if parsed.tokenizer is not None:
        given |= {"count": _counter(Path(parsed.tokenizer)), "counted_by": Path(parsed.tokenizer).name}
    with ExitStack() as stack:
        if parsed.model is not None:
            from headrace.serving.instructions import ModelInstructor

            cache = Path(parsed.cache) if parsed.cache else _cache()
            made = ModelInstructor.from_environment(parsed.model, cache, concurrency=parsed.concurrency)
            given["instructor"] = stack.enter_context(made)
        done = export(app, data, collection, out, recipe, **given)
    print(drawn(done.manifest, out))
    return 0


def _snapshot(
    app: Any, collection: Any, data: Path, out: Path, what: Any, given: dict[str, Any], parsed: argparse.Namespace
) -> int:
    from headrace.runners.library.snapshot import snapshot

    format = parsed.documents_only or parsed.chunks_only
    done = snapshot(
        app, data, collection, out, what=what, format=format, trusted=parsed.trusted_only, allow_empty=False, **given
    )
    left_out = _left_out(done.manifest.get("removed", {}))
    print(f"{collection.name}: version {done.version}, {done.rows:,} {what} in {out}{left_out}")
    return 0


def drawn(manifest: Mapping[str, Any], out: Path) -> str:
    """What was written, in a few lines."""
    documents, examples = manifest["documents"], manifest["examples"]
    of = manifest["at"]
    return "\n".join(
        (
            f"{manifest['collection']}: version {manifest['version']}{f' of {of}' if of else ''}",
            f"documents: {documents['train']:,} to train, {documents['test']:,} to test"
            f"{_left_out(documents['removed'])}",
            f"examples:  {examples['train']:,} to train, {examples['test']:,} to test{_left_out(examples['removed'])}",
            f"written to {out}",
        )
    )


def _left_out(removed: Mapping[str, int]) -> str:
    told = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in removed.items())
    return f"; left out: {told}" if told else ""


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"expected a time such as 2026-01-02T03:04:05Z for --at, found {text!r}") from None


def _condition(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(
            f"""expected JSON such as '{{"lang": "en"}}' for --where, found {text!r} ({error})"""
        ) from None
    if not isinstance(found, dict):
        raise InputError(f"""expected an object such as '{{"lang": "en"}}' for --where, found {text!r}""")
    return found


def _templates(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals:
            raise InputError(
                f"""expected NAME=TEXT for --template, as section='Explain "{{heading}}".', found {one!r}"""
            )
        found[name] = text
    return found


def _counter(path: Path) -> Any:
    """Tokens by a tokenizer.json."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingDependencyError(
            f'--tokenizer needs the package "tokenizers", which cannot be imported ({error}); install it with: '
            "pip install tokenizers"
        ) from error
    try:
        made = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - what the package raises is a bare Exception
        raise InputError(f"expected a tokenizer.json at {path}, found none that can be read ({error})") from None
    made.no_truncation()
    return lambda text: len(made.encode(text, add_special_tokens=False))


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "headrace" / "instructions.db"
