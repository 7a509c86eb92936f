"""Comparison with what the logs showed to others: bundles, peers, inclusion promises."""
