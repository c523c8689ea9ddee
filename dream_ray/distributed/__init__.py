"""Everything that runs on Ray (floor 3): the only package that imports it."""
