"""Transparency-log bytes: one module per public specification, parsing and verifying only.

Nothing here performs I/O, reads a clock or keeps state. Every function takes bytes and values and returns values, or
raises an error that says which sentence of the specification the input broke. `log_lite` builds proofs for a log;
`monitor` decides the meaning of a broken promise.
"""
