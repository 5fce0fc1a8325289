"""What is kept: the push log, checkpoints, dead letters on disk; the online store that reads go to."""
