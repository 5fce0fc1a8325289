"""Models asked about the events of streams, beside the engine: what waits, who is asked, what comes of it in order."""
