"""Selection and matching: what a step does to the synthetic images."""
