"""Older entries offered to newer rules: beside following, or at once on all cores."""
