"""K-means and the choice of real images."""
