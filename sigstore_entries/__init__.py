"""Meaning of a log entry: signers and digests. Decodes every Rekor kind and CT leaf into one `Signing` value.

Every function is pure: bytes in, values out, bounded time and memory for hostile input. The decoders report only the
*content* of an entry: `rules` decides whether a signing was expected, `monitor` whether the log can be believed.
"""
