"""Parsers of URLs and of container image names; no network access."""
