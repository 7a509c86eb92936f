"""Schema changes, oldest first; packaged with the program and run by `signwatch init` and `signwatch migrate`."""
