"""Compares this monitor's view of the logs with others': users' bundles, peers, inclusion promises."""
