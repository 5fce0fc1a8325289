"""Files and pages to text: what each kind becomes, and that nothing is taken for text that is none."""

import io
import random
import sys
import time
import zlib
from pathlib import Path

import pypdf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import registry
from headrace.errors import InputError, MissingDependencyError, TooLargeError
from headrace.formats.text import Extracted, Given, extract


def pdf(*pages: bytes, packed: bool = False) -> bytes:
    """A PDF whose pages draw these texts (or are these packed streams)."""
    out, places = io.BytesIO(), []
    count = len(pages)
    kids = b" ".join(b"%d 0 R" % (4 + 2 * number) for number in range(count))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count %d /Kids [%s] >>" % (count, kids),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for number, page in enumerate(pages):
        stream = page if packed else b"BT /F1 12 Tf 72 720 Td (%s) Tj ET" % page
        filter_ = b" /Filter /FlateDecode" if packed else b""
        content = 5 + 2 * number
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % content
        )
        objects.append(b"<< /Length %d%s >>\nstream\n%s\nendstream" % (len(stream), filter_, stream))
    out.write(b"%PDF-1.7\n")
    for number, content_ in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, content_))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.writelines(b"%010d 00000 n \n" % place for place in places)
    out.write(b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start))
    return out.getvalue()


@pytest.mark.parametrize(
    ("path", "data", "title", "format_"),
    [
        ("a.md", b"# The title #\n\ntext", "The title", "markdown"),
        ("a.md", b"---\ntitle: 'From the front'\n---\n# Other\n", "From the front", "markdown"),
        ("a.md", b"```\n# no title\n```\n\nThe title\n=====\n", "The title", "markdown"),
        ("a.md", b"text alone", "a.md", "markdown"),
        ("a.rst", b"=====\nTitle\n=====\n\nText\n\nPart\n----\n", "Title", "rst"),
        ("PEP.rst", b":Author: me\n\nAbstract\n========\n\nText", "Abstract", "rst"),
        ("a.txt", b"\n First line\nSecond", "First line", "plain"),
        ("x/y.py", b"import os\n", "y.py", "python"),
        ("lib.RS", b"fn main() {}\n", "lib.RS", "rust"),
        ("run", b"#!/usr/bin/env -S python3.12 -u\nprint(1)\n", "run", "python"),
        ("run", b"#!/bin/sh\nls\n", "run", "bash"),
        ("Makefile", b"all:\n", "Makefile", "make"),
        ("Dockerfile", b"FROM x\n", "Dockerfile", "dockerfile"),
        ("README", b"Read me first\n", "Read me first", "plain"),
        ("a.unknown", b"some text\n", "some text", "plain"),
        ("a.ts", b"const x = 1\n", "a.ts", "typescript"),
        ("a.hpp", b"#pragma once\n", "a.hpp", "cpp"),
        ("empty.md", b"", "empty.md", "markdown"),
        ("empty.html", b"", "empty.html", "markdown"),
        ("page.html", b"<title>Page &amp; co</title><p>Short.</p>", "Page & co", "markdown"),
        ("page", b"<!DOCTYPE html><title>Page</title><p>Short.", "Page", "markdown"),
        ("a.pdf", pdf(b"Hello"), "a.pdf", "plain"),
        ("no-suffix", pdf(b"Hello"), "no-suffix", "plain"),
    ],
)
def test_kinds_of_files(path: str, data: bytes, title: str, format_: str) -> None:
    found = extract(data, path_or_type=f"/srv/{path}")
    assert (found.title, found.format) == (title, format_)


@pytest.mark.parametrize(
    ("type_", "url", "data", "text", "format_"),
    [
        ("text/html", "", b"<p>x</p>", "x", "markdown"),
        ("text/html; charset=ISO-8859-1", "", b"<p>\xfc</p>", "ü", "markdown"),
        ("text/plain", "https://h/a.md?raw=1", b"# x", "# x", "markdown"),
        ("text/plain", "https://h/a.html", b"<p>x", "<p>x", "plain"),
        ("application/octet-stream", "https://h/a.go", b"package x", "package x", "go"),
        ("text/x-anything", "https://h/", b"x", "x", "plain"),
        ("application/json", "", b"{}", "{}", "json"),
        ("application/pdf", "", pdf(b"Hello"), "Hello", "plain"),
    ],
)
def test_kinds_of_pages(type_: str, url: str, data: bytes, text: str, format_: str) -> None:
    found = extract(data, path_or_type=type_, url=url)
    assert (found.text, found.format) == (text, format_)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marks_of_encodings(encoding: str) -> None:
    text = "Zürich 東京 \U0001f600\nend"
    assert extract(text.replace("\n", "\r\n").encode(encoding), path_or_type="/a.txt").text == text


def test_what_is_declared_is_believed_and_nothing_guessed() -> None:
    latin = "café".encode("latin-1")
    assert extract(latin, path_or_type="/a.txt", charset="latin-1").text == "café"
    assert extract(b"# -*- coding: latin-1 -*-\n# " + latin, path_or_type="/a.py").text.endswith("café")
    quoted = b"<meta charset=iso-8859-1><p>\x93caf\xe9\x94"
    assert extract(quoted, path_or_type="/a.html").text == "“café”", "as browsers read ISO 8859-1"
    with pytest.raises(InputError, match=r"expected text in UTF-8, found bytes that are not at 3 \(e9\)"):
        extract(latin, path_or_type="/a.txt")
    with pytest.raises(InputError, match="UTF-8"):
        extract(latin, path_or_type="/a.txt", charset="punycode")


@pytest.mark.parametrize("path", ["/a.md", "/a.txt", "/a.html", "/a.py", "/a.bin", "/a.png", "/a.rst"])
def test_noise_is_no_text(path: str) -> None:
    noise = random.Random(1).randbytes(50_000)
    with pytest.raises(InputError):
        extract(noise, path_or_type=path)
    with pytest.raises(InputError, match="control characters"):
        extract(bytes(range(1, 9)) * 100, path_or_type=path)
    with pytest.raises(InputError, match="UTF-16 needs its byte order mark"):
        extract("text".encode("utf-16-le"), path_or_type=path)


def test_sizes_are_bounded() -> None:
    with pytest.raises(TooLargeError, match="expected at most 100 bytes, found 101"):
        extract(b"x" * 101, path_or_type="/a.txt", most_bytes=100)
    assert extract(b"x" * 100, path_or_type="/a.txt", most_bytes=100).text == "x" * 100


@pytest.mark.parametrize("path", ["/a.txt", "/a.md", "/a.rst", "/a.html", "/a.py"])
def test_a_word_of_a_million_characters(path: str) -> None:
    began = time.monotonic()
    assert extract(b"a" * 1_000_000, path_or_type=path).text == "a" * 1_000_000
    assert time.monotonic() - began < 5


BOMBS = {
    "attributes of one tag": b"<p " + b" ".join(b"a%d=1" % n for n in range(100_000)) + b">hello</p>",
    "tags": b"<body>" + b"<p>a</p>" * 50_000,
    "meta": b"<head>" + b"<meta name=date content=2020>" * 20_000 + b"</head><body>hello",
    "spaces": b"<p>" + b" " * 1_000_000 + b"x</p>",
    "quotes": b"<a '" * 100_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_html_that_would_take_minutes(name: str) -> None:
    """A limit of many times what it takes, and a small part of what it took without bounds."""
    began = time.monotonic()
    extract(BOMBS[name], path_or_type="text/html")
    assert time.monotonic() - began < 10


def test_html_that_is_nested_too_deep_is_refused() -> None:
    """Libxml2 would leave out what is inside, in silence."""
    with pytest.raises(InputError, match="nested"):
        extract(b"<div>" * 10_000 + b"hello", path_or_type="text/html")


def test_pages_of_some_length_are_cleaned() -> None:
    text = "A headrace is the channel that brings running water to the mill wheel. " * 10
    page = f"""<html lang="en-GB"><head><title>T</title><meta name="author" content="Ada Miller"></head><body>
      <nav><ul><li><a href="/">Home</a></li></ul></nav><main><h1>Head</h1><p>{text}</p>
      <pre><code>def f():
    return 1</code></pre><table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table></main>"""
    found = extract(page.encode(), path_or_type="text/html", url="https://example.org/x")
    assert found.language == "en-GB"
    assert found.metadata["author"] == "Ada Miller"
    assert found.text.startswith("# Head\n\nA headrace")
    assert "    return 1\n```" in found.text
    assert "Home" not in found.text


def test_short_pages_keep_all_blocks() -> None:
    page = b"<title>T</title><h2>Head</h2><p>One <b>short</b> line.<ul><li>a<li>b</ul><pre>x\n  y</pre><script>no()"
    assert extract(page, path_or_type="a.html").text == "## Head\n\nOne short line.\n\n- a\n- b\n\n```\nx\n  y\n```"


def test_pdfs_are_read_by_page() -> None:
    found = extract(pdf(b"First page", b"", b"Caf\xe9"), path_or_type="/x/a.pdf")
    assert found.text == "First page\n\n\n\nCafé"
    assert [found.text[start : start + 4] for start in found.metadata["page_starts"]] == ["Firs", "\n\nCa", "Café"]
    assert found.metadata["pages"] == 3


def test_pdfs_that_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    writer.encrypt("secret", algorithm="RC4-128")
    encrypted = io.BytesIO()
    writer.write(encrypted)
    with pytest.raises(InputError, match="encrypted"):
        extract(encrypted.getvalue(), path_or_type="/a.pdf")
    for broken in (b"%PDF-1.7\nno more", b"", pdf(b"x" * 1000)[:300], b"%PDF-" + bytes(range(256)) * 50):
        with pytest.raises(InputError):
            extract(broken, path_or_type="/a.pdf")


def test_a_pdf_that_unpacks_to_gigabytes(caplog: pytest.LogCaptureFixture) -> None:
    bomb = zlib.compress(b" " * 200_000_000, 9)
    began = time.monotonic()
    with pytest.raises(InputError):
        extract(pdf(bomb, packed=True), path_or_type="/a.pdf")
    assert time.monotonic() - began < 10


def test_pdfs_have_so_much_text_at_most() -> None:
    page = zlib.compress(b"BT /F1 12 Tf 72 720 Td (%s) Tj ET" % (b"x" * 3_000))
    with pytest.raises(TooLargeError, match="of text, found more by page 2"):
        extract(pdf(page, page, page, packed=True), path_or_type="/a.pdf", most_bytes=5_000)


def shout(data: bytes, given: Given) -> Extracted:
    """A loader of one's own."""
    if data == b"broken":
        raise KeyError("no such thing")
    return Extracted("Mine", data.decode().upper(), "plain", None, {"url": given.url})


def test_loaders_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """By suffix and by MIME type, before ours; what they raise concerns the one file."""
    monkeypatch.setattr(registry, "DEFAULT", registry.Registry())
    monkeypatch.setattr("headrace.formats.text.kinds.DEFAULT", registry.DEFAULT)
    for name in ("shout", "md", "vnd.shout"):
        registry.DEFAULT.register("text", name, "test_text_extraction:shout")
    assert extract(b"hi", path_or_type="/a.shout").text == "HI"
    assert extract(b"hi", path_or_type="/a.md").text == "HI"
    assert extract(b"hi", path_or_type="application/vnd.shout", url="https://h/").metadata == {"url": "https://h/"}
    assert extract(b"hi", path_or_type="/a.txt").text == "hi"
    with pytest.raises(InputError, match="KeyError"):
        extract(b"broken", path_or_type="/a.shout")


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "unstructured.partition.auto", None)
    monkeypatch.delitem(sys.modules, "headrace.formats.text.office", raising=False)
    with pytest.raises(MissingDependencyError, match=r'pip install "headrace\[unstructured\]"'):
        extract(b"PK\3\4", path_or_type="/a.docx")


@given(data=st.binary(max_size=300), path=st.sampled_from(["/a.md", "/a.html", "/a.pdf", "/a.txt", "/a", "text/html"]))
def test_whatever_comes_there_is_text_or_an_input_error(data: bytes, path: str) -> None:
    try:
        found = extract(data, path_or_type=path)
    except InputError:
        return
    found.text.encode()
    assert "\0" not in found.text


def test_this_repository_is_text() -> None:
    """Every file of the package and the documentation."""
    root = Path(__file__).parents[2]
    for path in [*root.glob("docs/*.md"), *root.glob("src/headrace/formats/*.py"), root / "LICENSE", root / "Makefile"]:
        found = extract(path.read_bytes(), path_or_type=str(path))
        assert found.text == path.read_text()
