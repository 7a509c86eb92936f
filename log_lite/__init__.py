"""A small transparency log for one machine: Rekor v1, Rekor v2 tiles and a CT log behind one base URL.

Unmodified Sigstore clients sign against it, and it can be told to misbehave (`log-lite fault`), so that a monitor can
be drilled against a log that lies. `tlog` parses and verifies; building proofs, sequencing and storing live here.
"""
