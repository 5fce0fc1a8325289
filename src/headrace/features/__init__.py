"""Feature views: per-key aggregates of a stream in columnar tiles, merged when they are read. Pure."""
