"""Misbehaviour on demand: each fault is a lens (`log_lite.lens`) or a filter on HTTP answers, and stores nothing."""
