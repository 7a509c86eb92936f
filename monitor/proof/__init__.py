"""Proofs over signed tree heads, and the evidence when one fails. The only package that makes a `TrustedHead`."""
