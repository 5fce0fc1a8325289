"""Where chunks are searched: one protocol, an exact store in memory, and the engines behind it."""
