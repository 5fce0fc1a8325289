"""Training data: tables as they were, read from beside the app that writes them, and the files they become."""
