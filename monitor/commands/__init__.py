"""One file per `signwatch` command."""
