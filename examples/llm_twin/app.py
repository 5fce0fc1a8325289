"""An LLM twin: what somebody has posted, written and programmed, kept searchable in step with the database it is in.

This file is all that a user of Headrace writes. Posts, articles and code are three types in one table, told apart by
`type`; what is cleaned, how it is cut and what embeds it is chosen by type. Where the changes come from is said from
outside:

    HEADRACE_TWIN=rabbitmq://localhost:5672/?queue=twin&format=change     a queue that watch.py fills (the default)
    HEADRACE_TWIN=mongodb://localhost:27017/twin?collection=documents     the database itself, with nothing between
    HEADRACE_TWIN=                                                        pushes only
"""

from __future__ import annotations

import os
from datetime import datetime
from typing import Literal

import headrace as hr

QUEUE = "rabbitmq://localhost:5672/?queue=twin&format=change&declare=true&type=classic"
SOURCE = os.environ.get("HEADRACE_TWIN", QUEUE) or None
EMBED = os.environ.get("HEADRACE_TWIN_EMBED", "minilm")
# A model that was trained on code finds code better: "sentence-transformers:NAME", say. It gets an index of its own.
EMBED_CODE = os.environ.get("HEADRACE_TWIN_EMBED_CODE", EMBED)
INDEX = os.environ.get("HEADRACE_TWIN_INDEX", "local:")


class Post(hr.Document):
    """Something short on a social network."""

    id: str
    type: Literal["post"] = "post"
    author: str
    platform: str
    text: str
    published: datetime


class Article(hr.Document):
    """Something long, in Markdown."""

    id: str
    type: Literal["article"] = "article"
    author: str
    title: str
    text: str
    link: str = ""
    published: datetime


class Code(hr.Document):
    """A file of a repository."""

    id: str
    type: Literal["code"] = "code"
    author: str
    repository: str
    path: str
    text: str
    language: str = "python"


def named(code: Code) -> tuple[str, str]:
    """The title and the text of a file: it is looked for by its path, too."""
    return f"{code.repository}/{code.path}", code.text


app = hr.App("llm-twin")
documents = app.table([Post, Article, Code], SOURCE, key="id", kind="type", name="documents")
twin = app.collection(
    "twin",
    documents,
    text={Post: ["text"], Article: ["title", "text"], Code: named},
    # Posts come with emoji, styled letters and links; an article's are part of it; code is left as it is.
    clean={Post: hr.clean(), Article: hr.clean(without=["emoji"]), Code: False},
    # A post is one thought and one chunk; articles are cut at headings and paragraphs; code at functions and classes.
    chunk={
        Post: hr.chunk(tokens=128, overlap=0),
        Article: hr.chunk(tokens=256, overlap=32),
        Code: hr.chunk(tokens=256),
    },
    embed={Code: EMBED_CODE, "*": EMBED},
    index=INDEX,
    filters=["type", "author", "platform", "repository", "language", "published"],
    about="What the author has posted, written and programmed: use it to answer in their words, and to cite them.",
)
