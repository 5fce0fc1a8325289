"""Embedding beside the stream: loading models, and the queue in front of each."""
