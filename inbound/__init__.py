"""Start of every server of ours. Imports nothing of ours."""
