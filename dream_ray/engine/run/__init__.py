"""The run directory: its specification, its files, its beginning and its end."""
