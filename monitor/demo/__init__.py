"""The whole loop as real processes on loopback, for `signwatch demo`."""
