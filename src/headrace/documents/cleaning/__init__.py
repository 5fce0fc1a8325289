"""The steps of cleaning, each a function from text to text."""
