"""What `Live` offers of contexts."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, cast

from headrace.serving.context import Contexts, Request
from headrace.serving.token import Token

if TYPE_CHECKING:
    from headrace.assembly.pack import Pack
    from headrace.declarations import Context
    from headrace.runners.base import Runner
    from headrace.serving.live import Live


class LiveContext:
    """The part of `Live` that is about contexts."""

    _runner: Runner
    _contexts: Contexts

    @property
    def runner(self) -> Runner:
        """What moves the app's input into its views."""
        return self._runner

    def context(
        self,
        target: Context | str,
        /,
        *,
        budget: int | None = None,
        max_age: str | timedelta | float | None = None,
        on_stale: Literal["wait", "flag", "refuse"] | None = None,
        after: Token | str | None = None,
        timeout: float = 10.0,
        consistent: bool | None = None,
        **arguments: Any,
    ) -> Pack:
        """What a model is given for a request, read at one point and packed into a token budget.

        Args:
            target: A context or its name.
            budget: Tokens; None for what the context declares, as with the next two and `consistent`.
            max_age: How old may be what is read. Given here, the newest event of each row counts as well; declared,
                only how far the engine is behind its input and a collection behind its table.
            on_stale: What is done when it is older: "wait" until it is not, "flag" it in words, or "refuse".
            after: Wait until the read sees the write that returned this token.
            timeout: How many seconds to wait, in all.
            consistent: Whether everything is read at one point.
            arguments: Those of the context's function.

        Raises:
            UnknownNameError: There is no such context.
            InputError: An argument is missing, unknown or of the wrong type, or the function yields what is no part.
            StaleError: What was waited for did not come in time, or is refused.
            StorageError: An embedder or an index is out of reach.
        """
        live = cast("Live", self)
        request = Request.of(live, target, budget, max_age, on_stale, after, timeout, consistent, arguments)
        pack = self._contexts.pack(request)
        live.packs.keep(pack)
        return pack
