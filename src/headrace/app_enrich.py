"""What `App` offers of models in streams: the declaration of enrichments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from headrace.declarations import Stream
from headrace.enrich.derived import derived_model
from headrace.enrich.prompt import Question, questioner
from headrace.enrich.spec import Llm
from headrace.errors import ConfigError, UnknownNameError, nearest
from headrace.upstream.spec import URLS_VARIABLE, Upstream, from_environment

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.app_chats import Chat


@dataclass(frozen=True, eq=False)
class Enrichment:
    """A stream whose events are those of another with a model's answers.

    Attributes:
        name: That of the stream that comes of it.
        base: The stream whose events are asked about.
        stream: The stream that comes of it.
        spec: How the model is asked.
        question: What makes a question of a row.
    """

    name: str
    base: Stream
    stream: Stream
    spec: Llm
    question: Callable[[Mapping[str, Any]], Question] = field(repr=False)


class AppEnrichments:
    """The part of `App` that is about models in streams."""

    name: str
    streams: dict[str, Stream]
    enrichments: dict[str, Enrichment]
    endpoint: Chat | None

    def enrich(self, stream: Stream, spec: Llm, *, name: str | None = None) -> Stream:
        """Declares a stream of another's events with a model's answers; see `Stream.enrich`."""
        if not isinstance(spec, Llm):
            raise ConfigError(f"expected stream.enrich(hr.llm(…)), found {spec!r}")
        if self.streams.get(stream.name) is not stream:
            raise UnknownNameError(f"no stream {stream.name!r} in {self.name}; {nearest(stream.name, self.streams)}")
        question = questioner(spec.prompt, list(stream.schema.columns))
        model = derived_model(stream.schema.model, spec.output)
        made = cast("App", self).stream(model, lateness=stream.lateness / 1e6, name=name)
        self.enrichments[made.name] = Enrichment(made.name, stream, made, spec, question)
        return made

    def upstreams_of(self, enrichment: Enrichment) -> tuple[Upstream, ...]:
        """The model servers that an enrichment asks.

        Raises:
            ConfigError: There is none.
        """
        of_chat = self.endpoint.upstreams if self.endpoint is not None else ()
        found = enrichment.spec.upstreams or of_chat or from_environment()
        if not found:
            raise ConfigError(
                f"the stream {enrichment.name!r} asks a model, and no model server is declared: give upstreams= to "
                f"hr.llm or app.chat, or set {URLS_VARIABLE}"
            )
        return found

    def check_enrichments(self, runner: str) -> None:
        """Checks what only shows in the whole.

        Raises:
            ConfigError: There is no model server, or the runner cannot follow its input.
        """
        if runner == "replica":
            return  # it reads what comes of them elsewhere
        for one in self.enrichments.values():
            self.upstreams_of(one)
            if runner != "local":
                raise ConfigError(
                    f'the stream {one.name!r} asks a model, which the runner {runner!r} cannot do; run it with "local"'
                )
