"""HTML to Markdown: the article without its menus, by trafilatura, in bounded time.

Trafilatura is made for pages of some length and takes more than linear time. So a tree that is very large, and a page
in which it finds nothing (short pages are often taken for menus), is walked instead: every block of its body, in one
pass. Tags with very many attributes lose them first, since libxml2 takes quadratic time for those.
"""

from __future__ import annotations

import copy
import os
import re
from datetime import datetime
from typing import Any

import lxml.etree
import lxml.html
import trafilatura
import trafilatura.metadata

from headrace.errors import InputError, TooLargeError
from headrace.formats.text.encoding import declared, decode
from headrace.formats.text.states import Extracted, Given

MOST_ELEMENTS = 8_000  # of a tree that trafilatura is given; about a second
MOST_CHARACTERS = 1 << 20
_FAST = 2_000  # elements from which it may not try a second way
_SHORT = 500  # characters below which a page is all article
_MOST_ATTRIBUTES = 400
_LONG_TAG = 2_000
_LONGEST = 200
_SKIPPED = {"script", "style", "template", "noscript", "svg", "math", "iframe", "object", "head", "nav", "footer"}
_SKIPPED |= {"select", "button"}
_BLOCKS = {"p", "div", "section", "article", "main", "header", "aside", "blockquote", "figure", "form", "li", "pre"}
_BLOCKS |= {"ul", "ol", "dl", "dt", "dd", "table", "tr", "br", "h1", "h2", "h3", "h4", "h5", "h6"}
_TAG = re.compile(r"<[a-zA-Z](?:[^<>\"']++|\"[^\"]*+\"|'[^']*+')*+")
_QUOTED = re.compile(r"\"[^\"]*+\"|'[^']*+'")
_SPACE = re.compile(r"\s+")


def load(data: bytes, given: Given) -> Extracted:
    """A page as Markdown, with its title, language, author and date.

    Raises:
        InputError: It is no text, or there is nothing to parse.
        TooLargeError: What comes out is larger than `given.most_bytes`.
    """
    source = decode(data, charset=given.charset, inside=declared(data, "html"))
    tree = _tree(source)
    name = os.path.basename(given.name)
    if tree is None:
        return Extracted(name, "", "markdown")
    language = (tree.get("lang") or tree.get("{http://www.w3.org/XML/1998/namespace}lang") or "")[:35] or None
    title, metadata = _about(tree, given.url)
    text = _markdown(tree, len(source), given.url)
    if len(text.encode("utf-8", "replace")) > given.most_bytes:
        raise TooLargeError(f"expected a page of at most {given.most_bytes} bytes of text, found {len(text)}")
    return Extracted(title[:_LONGEST] or name, text, "markdown", language, metadata)


def _tree(source: str) -> Any:
    """The document's element; None if there is none."""
    if not source.strip():
        return None
    # An encoding in the declaration of XML is refused in characters, and they are decoded already.
    source = _TAG.sub(_bare, re.sub(r"^\s*<\?xml[^>]{0,200}\?>", "", source))
    parser = lxml.html.HTMLParser(remove_comments=True, remove_pis=True, no_network=True, huge_tree=False)
    try:
        tree = lxml.html.document_fromstring(source, parser=parser)
    except lxml.etree.ParserError:
        return None  # no element at all: nothing but comments, say
    except (lxml.etree.LxmlError, ValueError) as error:
        raise InputError(f"expected HTML, found what cannot be parsed as it: {error}") from None
    if any(error.type == lxml.etree.ErrorTypes.ERR_RESOURCE_LIMIT for error in parser.error_log):
        raise InputError("expected a page, found elements nested more than 256 deep, or 10 MB of text in one of them")
    return tree


def _bare(tag: re.Match[str]) -> str:
    """A tag; without its attributes if it has very many, which are read in quadratic time."""
    text = tag[0]
    if len(text) < _LONG_TAG or len(_QUOTED.sub(" ", text).split()) <= _MOST_ATTRIBUTES:
        return text
    return re.match(r"<[\w:.\-]{1,40}", text)[0]  # type: ignore[index]  # a tag begins so


def _about(tree: Any, url: str) -> tuple[str, dict[str, Any]]:
    """The title, and what the head of the page says; only the head is searched, as a body may be of any size."""
    found = tree.find("head")
    head = lxml.html.Element("html")
    if found is not None and sum(1 for _ in found.iter()) <= 1_000:
        head.append(copy.deepcopy(found))
    title = _SPACE.sub(" ", "".join(tree.xpath("string((//head/title)[1])"))).strip()
    document = trafilatura.metadata.extract_metadata(head, default_url=url or None, extensive=False)
    title = _meta(tree, "og:title") or title or _SPACE.sub(" ", tree.xpath("string((//h1)[1])")).strip()
    said = {"author": document.author, "description": document.description, "date": _date(tree) or document.date}
    said |= {"site": document.sitename}
    return title, {name: str(value)[:2_000] for name, value in said.items() if value}


def _meta(tree: Any, name: str) -> str:
    return str(tree.xpath("string((//head/meta[@property=$name or @name=$name]/@content)[1])", name=name)).strip()


def _date(tree: Any) -> str | None:
    """When the page says it was published, if that is a time."""
    for name in ("article:published_time", "og:published_time", "date", "dcterms.date", "DC.date.issued"):
        try:
            return datetime.fromisoformat(_meta(tree, name)).isoformat()
        except ValueError:
            continue
    return None


def _markdown(tree: Any, length: int, url: str) -> str:
    walked = walk(tree)
    elements = sum(1 for _ in tree.iter())
    if elements > MOST_ELEMENTS or length > MOST_CHARACTERS or len(walked) < _SHORT:
        return walked
    text = trafilatura.extract(
        tree,
        url=url or None,
        output_format="markdown",
        fast=elements > _FAST,
        include_comments=False,
        include_tables=True,
        with_metadata=False,
    )
    # Less than a tenth of a page is a caption that was taken for the article.
    return text if text and 10 * len(text) >= len(walked) else walked


def walk(tree: Any) -> str:
    """The blocks of a page as Markdown: headings, paragraphs, items and code. One pass, however deep it is."""
    blocks: list[str] = []
    line: list[str] = []
    prefix, skipped, code = "", 0, 0

    def flush() -> None:
        text = "".join(line).strip("\n") if code else _SPACE.sub(" ", "".join(line)).strip()
        line.clear()
        if text.strip() and prefix == "- " and blocks and blocks[-1].startswith("- ") and not code:
            blocks[-1] += "\n- " + text
        elif text.strip():
            blocks.append(f"```\n{text}\n```" if code else prefix + text)

    for event, element in lxml.etree.iterwalk(tree, events=("start", "end")):
        tag = element.tag if isinstance(element.tag, str) else ""
        begins = event == "start"
        if tag in _SKIPPED:
            skipped += 1 if begins else -1
        elif not skipped and tag in _BLOCKS and (not code or tag == "pre"):
            flush()
            code += 0 if tag != "pre" else 1 if begins else -1
            prefix = _prefix(tag) if begins else ""
        elif not skipped and code and tag == "br" and begins:
            line.append("\n")
        elif not skipped and tag in ("td", "th") and begins:
            line.append(" ")
        if not skipped:
            line.append((element.text if begins else element.tail) or "")
    flush()
    return "\n\n".join(blocks)


def _prefix(tag: str) -> str:
    if tag == "li":
        return "- "
    return "#" * int(tag[1]) + " " if tag[0] == "h" and tag[1:].isdigit() else ""
