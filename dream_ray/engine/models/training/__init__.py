"""The training of a network that is trained once: its worker, its checkpoint and what it reports."""
