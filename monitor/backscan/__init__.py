"""Offers older entries to newer rules: in small steps beside following, or at once on all cores."""
