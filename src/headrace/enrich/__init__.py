"""A model asked about each event of a stream: what is asked, how, and what an answer must be. Pure: it asks nobody."""
