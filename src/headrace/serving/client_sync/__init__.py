"""The client for threads. Made of `client_async` by `make client`: change that."""
