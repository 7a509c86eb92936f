"""Texts that name a place elsewhere, read without asking it: URLs and names of container images."""
