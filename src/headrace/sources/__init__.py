"""The outside world -> batches with positions: one module a connector, found through `headrace.registry`."""

from headrace.sources.base import Chunk, EndOfSource, Reader, Skipped, Source

__all__ = ["Chunk", "EndOfSource", "Reader", "Skipped", "Source"]
