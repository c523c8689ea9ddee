"""Everything that runs on Ray (layer 3); the only package that imports Ray."""
