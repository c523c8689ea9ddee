"""Benchmarks: measured by hand, results as JSON under results/, never timed in tests."""
