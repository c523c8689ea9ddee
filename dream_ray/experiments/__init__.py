"""Experiments: a table of arms x seeds that is run, evaluated and reported as its file says (layer 2; needs no Ray)."""
