"""From a row to what is searched: clean, chunk, diff, embed. Pure but for the embedder's model."""
