"""Pure mathematics on tensors (floor 0): no I/O, no configuration objects, no ambient randomness."""
