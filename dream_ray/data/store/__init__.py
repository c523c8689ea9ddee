"""The image store: its files, its manifest and its image grids."""
