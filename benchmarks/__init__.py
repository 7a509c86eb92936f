"""Speed and noise, as figures that mean the same on every machine: ratios measured within one run, and counts.

`python -m benchmarks` prints a table and writes `bench.json`. Nothing here is shipped, and nothing imports `tests/`.
"""
