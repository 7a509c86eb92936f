"""The whole loop as real processes on loopback: what `signwatch demo` shows."""
