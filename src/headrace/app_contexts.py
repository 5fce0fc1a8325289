"""What `App` offers of contexts: their declaration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from headrace.declarations import MOST_BUDGET, Context
from headrace.errors import ConfigError, UnknownNameError, nearest
from headrace.schema import snake_case
from headrace.units import duration

if TYPE_CHECKING:
    from headrace.declarations import Collection, OnStale
    from headrace.features.view import View


class AppContexts:
    """The part of `App` that is about contexts."""

    name: str
    views: dict[str, View]
    collections: dict[str, Collection]
    contexts: dict[str, Context]

    def context(
        self,
        *,
        budget: int = 1500,
        max_age: str | timedelta | float | None = None,
        on_stale: OnStale = "flag",
        name: str | None = None,
        tokenizer: str | None = None,
        consistent: bool = True,
    ) -> Callable[[Callable[..., Any]], Context]:
        """Declares a function as a context: a decorator.

        The function yields parts (or returns a list of them): ``Spending(user_id)``, ``library.search(question)``,
        another context called with its arguments, `hr.text`, a plain text, each as it is or in `hr.section`. Its
        parameters, with their types, are what the context is asked with; its docstring is what a model reads.

        Args:
            budget: Tokens of the whole prompt.
            max_age: How far behind the world what is read may be; None for as far as it is.
            on_stale: What is done when it is further: "wait" until it is not, "flag" it in words, or "refuse".
            name: In URLs and tools; the function's name in snake_case if not given.
            tokenizer: What counts tokens: "tiktoken:cl100k_base", "tokenizers:/path/tokenizer.json", a model's name;
                None for a stated estimate.
            consistent: Whether everything is read at one point; if not, each part as soon as it can be.

        Raises:
            ConfigError: The name is taken, the function or one of its parameters cannot be used, or an option.
        """
        if isinstance(budget, bool) or not isinstance(budget, int) or not 1 <= budget <= MOST_BUDGET:
            raise ConfigError(f"expected a context's budget from 1 to {MOST_BUDGET:,} tokens, found {budget!r}")
        if on_stale not in ("wait", "flag", "refuse"):
            raise ConfigError(f'expected on_stale="wait", "flag" or "refuse", found {on_stale!r}')
        limit = None if max_age is None else duration(max_age)

        def declare(function: Callable[..., Any]) -> Context:
            label = name or snake_case(getattr(function, "__name__", ""))
            if not label.replace("_", "a").replace("-", "a").isalnum() or len(label) > 64:
                raise ConfigError(f"expected a name of 1 to 64 letters, digits, '_' and '-', found {label!r}")
            taken: dict[str, Mapping[str, object]] = {
                "view": self.views,
                "collection": self.collections,
                "context": self.contexts,
            }
            for kind, names in taken.items():
                if label in names:
                    raise ConfigError(f"there is a {kind} {label!r} already; give this one another with name=")
            made = Context.of(label, function, budget, limit, on_stale, consistent, tokenizer)
            self.contexts[label] = made
            return made

        return declare

    def context_of(self, given: Context | str) -> Context:
        """The context that a name or a context stands for.

        Raises:
            UnknownNameError: There is none.
        """
        if isinstance(given, Context) and self.contexts.get(given.name) is given:
            return given
        if isinstance(given, str) and given in self.contexts:
            return self.contexts[given]
        shown = given if isinstance(given, str) else getattr(given, "name", given)
        raise UnknownNameError(f"no context {shown!r} in {self.name}; {nearest(str(shown), self.contexts)}")
