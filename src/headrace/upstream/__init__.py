"""Model servers that speak OpenAI's API: a pool of them, behind one queue. It knows nothing of what is asked."""
