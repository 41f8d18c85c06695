"""Benchmarks: what a request through Weir costs, beside what less costs, and nothing at all."""
