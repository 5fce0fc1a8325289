"""Tables and collections of an app while it runs, in threads of their own: features never wait for them."""
