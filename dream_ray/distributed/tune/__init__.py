"""Ray Tune: the search of a sweep."""
