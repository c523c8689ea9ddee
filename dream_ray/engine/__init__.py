"""Single-process programs (floor 2): distil, evaluate, artefacts. Runs whole without Ray; open distill.py first."""
