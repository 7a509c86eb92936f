"""Measurements: protocols that the other packages call, and their Prometheus implementation."""
