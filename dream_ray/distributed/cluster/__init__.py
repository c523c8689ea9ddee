"""The connection to Ray, its capacity and its tasks."""
