"""Networks that are matched at: their sources, their training, and the functions that matching needs of them."""
