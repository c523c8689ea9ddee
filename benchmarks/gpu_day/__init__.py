"""What to measure where a GPU is at hand for fifteen minutes; `__main__.py` describes it."""
