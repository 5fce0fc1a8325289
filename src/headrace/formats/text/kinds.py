"""Which bytes are what: by the suffix of a name, by a MIME type, by the first bytes. One table, and users' own lines.

What a user registers goes first: `hr.register("text", "epub", "my_package.books:read")` takes every file that ends
with .epub and every page of a type whose subtype is `epub` (of `application/epub+zip`, register "epub+zip" as well).
The registered function is called as `read(data, given)`; see `headrace.formats.text.states.Loader`.
"""

from __future__ import annotations

import os
import re

from headrace.registry import DEFAULT, Connector

_HERE = "headrace.formats.text"
# By type; every other type is text as it stands.
LOADERS = {
    "html": Connector("text", "html", f"{_HERE}.html:load", "text", "HTML to Markdown, by trafilatura"),
    "pdf": Connector("text", "pdf", f"{_HERE}.pdf:load", "text", "PDF, by pypdf"),
    "office": Connector("text", "docx", f"{_HERE}.office:load", "unstructured", "whatever unstructured can read"),
}
PLAIN = Connector("text", "txt", f"{_HERE}.plain:load", None, "text as it stands")

_BY_SUFFIX = {
    "html": "html htm xhtml",
    "markdown": "md markdown mdown mkd",
    "rst": "rst rest",
    "plain": "txt text log adoc asciidoc org tex csv tsv",
    "pdf": "pdf",
    "office": "docx doc odt rtf pptx ppt xlsx xls epub eml msg",
    "python": "py pyi pyw",
    "rust": "rs",
    "go": "go",
    "java": "java",
    "javascript": "js mjs cjs jsx",
    "typescript": "ts mts cts tsx",
    "c": "c h",
    "cpp": "cc cpp cxx c++ hh hpp hxx h++ ipp",
    "csharp": "cs",
    "kotlin": "kt kts",
    "scala": "scala",
    "swift": "swift",
    "ruby": "rb",
    "php": "php",
    "perl": "pl pm",
    "lua": "lua",
    "r": "r",
    "julia": "jl",
    "haskell": "hs",
    "elixir": "ex exs",
    "erlang": "erl hrl",
    "clojure": "clj cljs",
    "dart": "dart",
    "zig": "zig",
    "bash": "sh bash zsh",
    "sql": "sql",
    "css": "css scss",
    "json": "json jsonl ndjson",
    "yaml": "yaml yml",
    "toml": "toml",
    "xml": "xml svg xsd",
    "proto": "proto",
    "cmake": "cmake",
    "ini": "ini cfg conf",
}
SUFFIXES = {suffix: type_ for type_, suffixes in _BY_SUFFIX.items() for suffix in suffixes.split()}
_NAMES = {"makefile": "make", "dockerfile": "dockerfile", "cmakelists.txt": "cmake", "rakefile": "ruby"}
_MIMES = {
    "text/html": "html",
    "application/xhtml+xml": "html",
    "text/markdown": "markdown",
    "text/x-markdown": "markdown",
    "text/x-rst": "rst",
    "text/prs.fallenstein.rst": "rst",
    "text/plain": "plain",
    "text/csv": "plain",
    "application/pdf": "pdf",
    "application/json": "json",
    "application/yaml": "yaml",
    "text/xml": "xml",
    "application/xml": "xml",
    "text/css": "css",
    "text/x-python": "python",
    "text/javascript": "javascript",
    "application/javascript": "javascript",
    "application/msword": "office",
    "application/rtf": "office",
    "application/epub+zip": "office",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "office",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "office",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "office",
    "application/vnd.oasis.opendocument.text": "office",
}
# What a server says when it does not know.
_NOTHING = ("application/octet-stream", "binary/octet-stream", "application/force-download")
_MIME = re.compile(r"\s*((?:application|text|image|audio|video|font|message)/[\w.+\-]+)\s*(;.*)?", re.DOTALL)
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:\-]+)", re.IGNORECASE)
_SHEBANG = re.compile(rb"#!\s*(?:\S*/)?(?:env\s+(?:-S\s+)?)?(\S+)")
_PROGRAMS = {"python": "python", "sh": "bash", "bash": "bash", "zsh": "bash", "dash": "bash", "node": "javascript"}
_PROGRAMS |= {"ruby": "ruby", "perl": "perl", "lua": "lua", "php": "php", "deno": "typescript", "julia": "julia"}


def loader_of(path_or_type: str, url: str, data: bytes) -> tuple[Connector, str, str, str | None]:
    """What reads some bytes: its connector, their type, their name, and the charset that the MIME type says.

    Args:
        path_or_type: A path, or a MIME type such as "text/html; charset=utf-8". A path of one folder that looks like
            a MIME type is a path if it ends with a known suffix.
        url: Where they came from; its last part names what a MIME type does not.
        data: They themselves; the first decide where nothing else does.
    """
    theirs = {each.scheme: each for each in DEFAULT.connectors("text")}
    mime = _MIME.fullmatch(path_or_type)
    if mime is None or suffix_of(path_or_type) in SUFFIXES:
        name = os.path.basename(path_or_type)
        suffix = suffix_of(name)
        found = theirs.get(suffix)
        return (found, suffix, name, None) if found else (*_ours(type_of(name, data)), name, None)
    type_, name = mime[1].lower(), os.path.basename(url.partition("?")[0].partition("#")[0])
    charset = _CHARSET.search(mime[2] or "")
    said = charset[1] if charset else None
    found = theirs.get(type_.partition("/")[2])
    if found:
        return found, type_, name, said
    if type_ in _MIMES:
        # "text/plain" says little: a raw file of a repository is served so, whatever it holds.
        better = SUFFIXES.get(suffix_of(name)) if type_ == "text/plain" else None
        return *_ours(better if better not in (None, "html", "pdf", "office") else _MIMES[type_]), name, said
    if type_ in _NOTHING or type_.startswith("text/"):
        return *_ours(type_of(name, data)), name, said
    # An image, say: no text of ours, and the loader of text refuses what is not.
    return *_ours("pdf" if data.startswith(b"%PDF-") else "plain"), name, said


def _ours(type_: str) -> tuple[Connector, str]:
    return LOADERS.get(type_, PLAIN), type_


def suffix_of(name: str) -> str:
    """What stands after the last dot, in lower case; empty for a name such as ".profile"."""
    return os.path.splitext(os.path.basename(name))[1][1:].lower()


def type_of(name: str, head: bytes) -> str:
    """The type of a file by its name, else by its first bytes; "plain" where neither says."""
    known = _NAMES.get(os.path.basename(name).lower()) or SUFFIXES.get(suffix_of(name))
    if known:
        return known
    if head.startswith(b"%PDF-"):
        return "pdf"
    start = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "html"
    program = _SHEBANG.match(head[:256])
    if program:
        plain = re.sub(r"[\d.]+$", "", os.path.basename(program[1].decode("ascii", "replace")))
        return _PROGRAMS.get(plain, "plain")
    return "plain"
