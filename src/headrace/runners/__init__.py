"""What moves batches: the engine of an app. Only a runner's own file imports an engine."""
