"""Producers of network snapshots as Ray actors."""
