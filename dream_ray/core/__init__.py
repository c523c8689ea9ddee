"""Pure mathematics on tensors (layer 0): no I/O, no configuration objects, no ambient randomness."""
