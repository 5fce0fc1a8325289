"""The document models of files and pages: what `dir:` and `https:` tell of each, unless a model of your own says less.

    docs = app.table(hr.File, "dir:///srv/docs?glob=**/*.md", key="id")

A model of your own takes the columns that it names from the same rows, and leaves the others.
"""

from __future__ import annotations

from datetime import datetime

from headrace.document import Document


class File(Document):
    """A file of a directory.

    Attributes:
        id: The path below the directory, with slashes.
        path: The whole path.
        title: What the file calls itself, else its name.
        text: Its text.
        format: "markdown", "rst", "plain", or the name of a programming language.
        size: Of the file, in bytes.
        modified: When it was written last.
        suffix: With its dot, in lower case: ".md".
        language: The language that it says it is in, such as "en".
    """

    id: str
    path: str
    title: str
    text: str
    format: str = "plain"
    size: int = 0
    modified: datetime
    suffix: str = ""
    language: str | None = None


class Page(Document):
    """A page of the web.

    Attributes:
        id: The URL that it was asked for by, in its normal form.
        url: The URL that answered, after redirects.
        title: What it calls itself.
        text: Its text, as Markdown.
        format: "markdown", or what the server sent if that was no HTML.
        published: When it says, or its feed says, that it was published.
        fetched: When this text of it was fetched.
        language: The language that it says it is in, such as "en".
    """

    id: str
    url: str
    title: str
    text: str
    format: str = "markdown"
    published: datetime | None = None
    fetched: datetime
    language: str | None = None
