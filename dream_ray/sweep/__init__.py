"""Search for settings: what is tried, what comes of it, and what is kept (floor 2; needs no Ray)."""
