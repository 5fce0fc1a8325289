"""The event streams that stand open at a server: ended with it, since nothing else would end them."""

from __future__ import annotations

import asyncio


class EventStreams:
    """The streams that stand open, so that they can be ended with the server."""

    def __init__(self) -> None:
        self.open: set[asyncio.Event] = set()
        self.ending = False

    def end(self) -> None:
        """Ends them; those that come later end at once."""
        self.ending = True
        for woken in list(self.open):
            woken.set()
