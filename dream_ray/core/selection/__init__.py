"""K-means and the selection of real images."""
