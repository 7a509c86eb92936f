"""What `log-lite` does: the server in one file, what works on a directory in another."""
