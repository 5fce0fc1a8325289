"""What `Live` offers of tools, and of being told that a view's rows have changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headrace.serving import tool_calls, tool_forms

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.serving.tool_forms import Form


class LiveTools:
    """The part of `Live` that models call."""

    app: App
    _calls: tool_calls.Calls

    @property
    def calls(self) -> tool_calls.Calls:
        """The bounded threads that tools run on."""
        return self._calls

    def tools(self, form: Form = "chat") -> list[dict[str, Any]]:
        """Definitions of all that a model may call, with strict schemas.

        Args:
            form: Whose: "chat" (OpenAI's Chat Completions), "responses" (OpenAI's Responses), "anthropic" or "mcp".

        Raises:
            InputError: There is no such form.
        """
        return tool_forms.formed(self.app, form)

    def call(
        self,
        name: str,
        arguments: Mapping[str, Any] | str | None = None,
        *,
        timeout: float = tool_calls.DEFAULT_SECONDS,
    ) -> dict[str, Any]:
        """Runs a tool as a model's call does. What it answers is small: past a bound it is shortened, and says so.

        Args:
            name: The tool.
            arguments: An object, or the JSON text of one.
            timeout: How many seconds it may take.

        Raises:
            UnknownNameError: No tool has that name.
            InputError: The arguments do not fit; the message says which and why, for the model to mend.
            StaleError: It took longer; the message says so, for the model.
        """
        return tool_calls.call(self, self._calls, name, arguments, timeout)  # type: ignore[arg-type]  # it is a Live

    async def call_async(
        self,
        name: str,
        arguments: Mapping[str, Any] | str | None = None,
        *,
        timeout: float = tool_calls.DEFAULT_SECONDS,
    ) -> dict[str, Any]:
        """As `call`, for an event loop, which it does not hold up; cancelled, it gives the call up."""
        return await tool_calls.call_async(self, self._calls, name, arguments, timeout)  # type: ignore[arg-type]
