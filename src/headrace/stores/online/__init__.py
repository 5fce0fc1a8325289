"""Online stores: where reads find a view's tiles."""
