"""What `App` offers of memories: their declaration."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from headrace.declarations import Memory
from headrace.errors import ConfigError, UnknownNameError, nearest
from headrace.units import duration
from headrace.upstream.spec import Upstream


class AppMemories:
    """The part of `App` that is about memories."""

    name: str
    memories: dict[str, Memory]

    def memory(
        self,
        name: str,
        *,
        by: str = "session_id",
        keep: str | timedelta | float = "30d",
        embed: Any = "minilm",
        index: str = "local:",
        turns: int = 20,
        subject: str | None = None,
        summary: Callable[[str, list[Any]], str] | Upstream | str | None = None,
    ) -> Memory:
        """Declares a memory: turns of conversations, recalled by session and forgotten in time.

        Args:
            name: In URLs.
            by: What messages call the session that they are of.
            keep: For how long a turn is kept.
            embed: What turns are found by, as of a collection.
            index: Where, as of a collection.
            turns: How many of a session's turns are its latest; older ones are summed up, and found by their meaning.
            subject: What messages call whom they are about, for `live.forget(…, subject=…)`.
            summary: A function from the last summary and the turns since to the next summary, which may ask a model;
                it is run in the background. Or a model: "model" for the first of `app.chat()`, the name of another one
                of its, or a server. None: the sentences that say most are kept.

        Raises:
            ConfigError: The name is taken, a number is out of range, or an index or embedder is not known.
        """
        if not name.replace("_", "a").replace("-", "a").isalnum() or len(name) > 64:
            raise ConfigError(f"expected a name of 1 to 64 letters, digits, '_' and '-', found {name!r}")
        if name in self.memories:
            raise ConfigError(f"there is a memory {name!r} already; give this one another name")
        if isinstance(turns, bool) or not isinstance(turns, int) or not 1 <= turns <= 1_000:
            raise ConfigError(f"the memory {name!r}: expected turns from 1 to 1,000, found {turns!r}")
        if (summary is not None and not callable(summary) and not isinstance(summary, Upstream | str)) or summary == "":
            raise ConfigError(
                f'the memory {name!r}: expected summary to be a function, "model", a model\'s name or an upstream, '
                f"found {summary!r}"
            )
        made = Memory.of(name, by, duration(keep), turns, subject, summary, embed, index)
        self.memories[name] = made
        return made

    def memory_of(self, given: Memory | str) -> Memory:
        """The memory that a name or a memory stands for.

        Raises:
            UnknownNameError: There is none.
        """
        if isinstance(given, Memory) and self.memories.get(given.name) is given:
            return given
        if isinstance(given, str) and given in self.memories:
            return self.memories[given]
        shown = given if isinstance(given, str) else getattr(given, "name", given)
        raise UnknownNameError(f"no memory {shown!r} in {self.name}; {nearest(str(shown), self.memories)}")
