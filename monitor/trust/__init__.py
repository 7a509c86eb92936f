"""Keys, logs and certificate authorities: the trusted root, its history, and its refresh from a file or over TUF."""
