"""The kinds of expectation, one file each. Adding a kind is one file, one line in `kinds.py` and one page of docs."""
