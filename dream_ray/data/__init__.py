"""Image sets (layer 1): sources, ingest, and the memory-mapped Arrow store."""
