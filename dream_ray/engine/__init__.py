"""Single-process programs (layer 2): distil, evaluate, artefacts. Runs whole without Ray; open distill.py first."""
