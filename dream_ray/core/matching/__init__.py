"""Objectives, the matching of trajectories, and the step of the pixels."""
