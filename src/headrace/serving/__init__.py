"""What answers: reads in process, HTTP, tool calls, and the client for them."""
