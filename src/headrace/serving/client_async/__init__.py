"""The client's one definition: for an event loop. `client_sync`, for threads, is made of it by `make client`."""
