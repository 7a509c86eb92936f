"""Checks of submissions: every signature is verified before an entry is drafted, as Rekor does."""
