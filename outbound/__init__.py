"""Requests to other hosts, made safely: a deadline, size caps, an address guard. Of ours imports `addresses` only."""
