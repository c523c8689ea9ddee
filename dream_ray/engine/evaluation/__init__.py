"""Evaluation and validation of synthetic images."""
