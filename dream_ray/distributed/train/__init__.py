"""Ray Train: the trainer of a run and what its workers share."""
