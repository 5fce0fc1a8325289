"""The app of the tests of documents in production; its source comes from the environment."""

import os

import headrace as hr


class Article(hr.Document):
    """A piece of news."""

    id: str
    title: str
    body: str
    version: int = 0


app = hr.App("archive")
articles = app.table(Article, os.environ.get("ENGINE_SOURCE"), key="id", name="articles", history=0)
app.collection("library", articles, text=["title", "body"], embed="hash", index="edge:", chunk=hr.chunk(32, 4))
