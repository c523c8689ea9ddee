"""Benchmarks: run them by hand. They write JSON to results/; tests time nothing."""
