"""Bytes to text, by the loader for their kind; sizes are checked before anything is parsed."""

from __future__ import annotations

from headrace.document import MOST_BYTES
from headrace.errors import HeadraceError, InputError, TooLargeError
from headrace.formats.text.kinds import loader_of
from headrace.formats.text.states import Extracted, Given


def extract(
    data: bytes, *, path_or_type: str, url: str = "", charset: str | None = None, most_bytes: int = MOST_BYTES
) -> Extracted:
    """The text of a file or a page.

    Args:
        data: All of it.
        path_or_type: The file's path, or the MIME type that came with it ("text/html; charset=utf-8").
        url: Where it came from.
        charset: Its encoding, where it has no byte order mark and the MIME type says none.
        most_bytes: The largest file, and the longest text of it.

    Raises:
        InputError: It is no text: binary data, bytes that are not in their encoding, a broken or encrypted PDF.
        TooLargeError: It is larger than `most_bytes`, or would take too long.
        MissingDependencyError: What reads it is not installed; the message has the line that installs it.
    """
    if len(data) > most_bytes:
        raise TooLargeError(
            f"expected at most {most_bytes} bytes, found {len(data)}; a model could read none of it: split it"
        )
    connector, type_, name, said = loader_of(path_or_type, url, data)
    load = connector.load()
    try:
        found = load(data, Given(name, type_, url, said or charset, most_bytes))
    except HeadraceError:
        raise
    except Exception as error:
        # Parsers of files, and users' own, raise whatever comes up in a broken one; it is no more than that one file.
        said_so = f"{type(error).__name__}: {str(error)[:200]}"
        raise InputError(
            f"expected {connector.note or type_}, found what {connector.target} cannot read ({said_so})"
        ) from error
    if not isinstance(found, Extracted):
        raise InputError(f"expected {connector.target} to return an Extracted, found {type(found).__name__}")
    return found
