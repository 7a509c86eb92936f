"""One pass over one log: head, proof, entries, matches, one commit per batch."""
