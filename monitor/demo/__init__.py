"""A CA, a log, a signer and the monitor as real processes on loopback, for `signwatch demo`."""
