"""Benchmarks: ratios to a limit that is measured in the same loop, so that a slow machine cancels out."""
