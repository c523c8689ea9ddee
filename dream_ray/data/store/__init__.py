"""The image store: its files, its manifest, and pictures of it."""
