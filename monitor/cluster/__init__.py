"""Reads ranges of a log on the workers of a Dask cluster, and proves them here before their results are used."""
