"""The peers of the benchmarks: each module runs one, in a process of its own, and prints JSON."""
