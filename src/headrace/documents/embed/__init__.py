"""Embedders: texts to vectors, by name."""
