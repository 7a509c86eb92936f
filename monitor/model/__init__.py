"""Values and protocols that the other packages share: tree heads, positions, log sources, errors by owner. No I/O."""
