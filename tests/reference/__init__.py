"""Slow, obvious implementations in pure Python: oracles of the tests, and the pure-Python side of the benchmarks."""
