"""What `ca-lite` does: commands by what they need at run time, so that each imports only that."""
