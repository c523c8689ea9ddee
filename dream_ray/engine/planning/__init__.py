"""Predictions of the memory and the time of a run."""
