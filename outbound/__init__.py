"""Requests to other hosts, made safely: a deadline, size caps, an address guard. Imports only `addresses`."""
