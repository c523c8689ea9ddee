"""Ray Train: the trainer of a run, its process group, its metrics and its stop."""
