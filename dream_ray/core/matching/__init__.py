"""Matching objectives, trajectory matching, and the pixel step."""
