"""Contexts: what was read, packed within a budget and rendered for a model. Pure: no I/O, no clock."""
