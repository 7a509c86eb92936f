"""Requests to other hosts, made safely: a deadline, size caps, an address guard. Imports nothing of ours."""
