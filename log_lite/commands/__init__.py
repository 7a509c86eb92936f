"""Commands of `log-lite`: one file for the server, another for the commands that work on a directory."""
