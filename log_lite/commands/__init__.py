"""Commands of `log-lite`: the server in one file, those that work on a directory in another."""
