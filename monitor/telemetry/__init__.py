"""Measurements: hooks that the other packages call, and their Prometheus implementation."""
