"""Writes a handful of posts, articles and files of code into MongoDB, changes one of them, or deletes one.

python seed.py                                      all of them, in the collection `documents`
python seed.py --edit post-2 "What I think now."    another text for one
python seed.py --delete post-2                      takes one away
python seed.py --push http://127.0.0.1:8900         the same three, straight into a running app, without MongoDB
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from typing import Any

from pymongo import MongoClient, ReplaceOne
from pymongo.errors import PyMongoError

import headrace as hr

AUTHOR = "Mara Lindqvist"

POSTS = {
    "post-1": (
        "LinkedIn",
        "🚀 𝗕𝗮𝗰𝗸𝗳𝗶𝗹𝗹𝘀 𝗮𝗿𝗲 𝗻𝗼𝘁 𝗮 𝘀𝗶𝗱𝗲 𝗾𝘂𝗲𝘀𝘁.\n\n"
        "Every pipeline I have been called in to rescue had one path for live data and another for history. "
        "Sooner or later they disagree, and nobody can say which one is right.\n\n"
        "👉 Write one path.\n👉 Let the past flow through it.\n\n"
        "More on this: https://example.com/one-path?utm_source=linkedin #dataengineering",
    ),
    "post-2": (
        "X",
        "Unpopular opinion: most “real-time” dashboards need fresh numbers once an hour. Spend the latency budget "
        "where a machine decides, not where a person looks.",
    ),
    "post-3": (
        "LinkedIn",
        "What I ask in every interview now: “How would you delete one customer from your vector index?” "
        "The silence tells me how long the index has been in production. 🤐",
    ),
}
ARTICLES = {
    "article-1": (
        "Exactly once is a property of the whole",
        "No single component gives you exactly-once. A queue can promise that a message is not lost, and a store can "
        "promise that writing the same value twice changes nothing. Put together they behave as if each message had "
        "been handled once.\n\n"
        "## Where it goes wrong\n\n"
        "The common mistake is to acknowledge a message when it has been read. If the process dies before the result "
        "is stored, the broker will not send it again, and nobody will notice for weeks. Acknowledge after the commit, "
        "never before.\n\n"
        "## What a store has to do\n\n"
        "Give every record a key that does not depend on when it was processed. A random id per attempt turns each "
        "retry into a duplicate; a hash of the content turns it into a no-op.\n\n"
        "## Deletes\n\n"
        "An insert-only pipeline looks right until the first person asks to be forgotten. Publish deletes like any "
        "other change, with the key and a version, and test them first.",
    ),
    "article-2": (
        "Small chunks, stable chunks",
        "When a document changes, most of it stays the same. If a paragraph is inserted at the top and the splitter "
        "counts characters, every boundary moves and everything is embedded again.\n\n"
        "## Cut where the author did\n\n"
        "Headings and paragraphs do not move when something above them does. Cut there first, and only then by the "
        "embedder's own tokens.\n\n"
        "## Name a chunk by its content\n\n"
        "A chunk whose name is the hash of its text can be recognised in the next revision. What is recognised is not "
        "paid for twice.",
    ),
}
CODE = {
    "code-1": (
        "mara/backfill",
        "retry.py",
        '"""Calls that are tried again."""\n\n'
        "import random\nimport time\n\n\n"
        "def backoff(attempt: int, base: float = 0.1, most: float = 30.0) -> float:\n"
        '    """Seconds to wait before an attempt: exponential, with full jitter."""\n'
        "    return random.uniform(0, min(most, base * 2**attempt))\n\n\n"
        "def retry(call, attempts: int = 5, errors: tuple = (OSError,)):\n"
        '    """Calls a function until it succeeds; the last error is the caller\'s."""\n'
        "    for attempt in range(attempts):\n"
        "        try:\n"
        "            return call()\n"
        "        except errors:\n"
        "            if attempt == attempts - 1:\n"
        "                raise\n"
        "            time.sleep(backoff(attempt))\n",
    ),
    "code-2": (
        "mara/backfill",
        "window.py",
        '"""Tumbling windows over events that come out of order."""\n\n\n'
        "class Tumbling:\n"
        '    """Counts events in windows of a fixed size, by event time."""\n\n'
        "    def __init__(self, size: int, lateness: int) -> None:\n"
        "        self.size, self.lateness = size, lateness\n"
        "        self.open: dict[int, int] = {}\n"
        "        self.watermark = 0\n\n"
        "    def add(self, at: int) -> bool:\n"
        '        """Whether the event was in time for its window."""\n'
        "        start = at - at % self.size\n"
        "        if start + self.size + self.lateness <= self.watermark:\n"
        "            return False\n"
        "        self.open[start] = self.open.get(start, 0) + 1\n"
        "        self.watermark = max(self.watermark, at)\n"
        "        return True\n",
    ),
}


def rows() -> list[dict[str, Any]]:
    """All documents, as the app's table has them."""
    day = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
    made: list[dict[str, Any]] = []
    for number, (id, (platform, text)) in enumerate(POSTS.items()):
        made.append(
            {"id": id, "type": "post", "platform": platform, "text": text, "published": day.replace(day=number + 1)}
        )
    for number, (id, (title, text)) in enumerate(ARTICLES.items()):
        link = f"https://example.com/{id}"
        made.append(
            {
                "id": id,
                "type": "article",
                "title": title,
                "text": text,
                "link": link,
                "published": day.replace(month=number + 4),
            }
        )
    for id, (repository, path, text) in CODE.items():
        made.append(
            {"id": id, "type": "code", "repository": repository, "path": path, "text": text, "language": "python"}
        )
    return [row | {"author": AUTHOR} for row in made]


def in_database(options: argparse.Namespace) -> str:
    """Writes into MongoDB; says what it did."""
    with MongoClient[dict[str, Any]](options.mongodb, serverSelectionTimeoutMS=5000) as client:
        collection = client[options.database][options.collection]
        if options.delete:
            return f"{collection.delete_one({'_id': options.delete}).deleted_count} deleted"
        if options.edit:
            id, text = options.edit
            return f"{collection.update_one({'_id': id}, {'$set': {'text': text}}).modified_count} changed"
        documents = [{"_id": row.pop("id")} | row for row in rows()]
        collection.bulk_write([ReplaceOne({"_id": one["_id"]}, one, upsert=True) for one in documents])
        return f"{len(documents)} documents written"


def in_app(options: argparse.Namespace) -> str:
    """Pushes into a running app; says what it did."""
    with hr.connect(options.push, api_key=os.environ.get("HEADRACE_API_KEY")) as live:
        if options.delete:
            live.delete("documents", [options.delete])
            return f"{options.delete} deleted"
        wanted = rows()
        if options.edit:
            id, text = options.edit
            wanted = [row | {"text": text} for row in wanted if row["id"] == id]
        return f"{live.push('documents', wanted).accepted} documents pushed"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Writes what the twin knows, changes it, or takes it away.")
    what = made.add_mutually_exclusive_group()
    what.add_argument("--edit", nargs=2, metavar=("ID", "TEXT"), help="give a document another text")
    what.add_argument("--delete", metavar="ID", help="take a document away")
    mongodb = os.environ.get("MONGODB_URL", "mongodb://localhost:27017/?directConnection=true")
    made.add_argument("--mongodb", default=mongodb, metavar="URL", help="or MONGODB_URL")
    made.add_argument("--database", default="twin", help="(%(default)s)")
    made.add_argument("--collection", default="documents", help="(%(default)s)")
    made.add_argument("--push", metavar="URL", help="into the app that headrace serves there, instead")
    return made


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    try:
        print(in_app(options) if options.push else in_database(options))
    except (hr.HeadraceError, PyMongoError) as error:
        print(f"seed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
