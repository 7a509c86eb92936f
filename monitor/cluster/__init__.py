"""Ranges of a log read by the workers of a Dask cluster, and proven here before anything is made of them."""
