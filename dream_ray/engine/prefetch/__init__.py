"""Network snapshots made ahead of the workers."""
