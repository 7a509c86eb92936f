"""Meaning of a log entry: signers and digests. Decodes every Rekor kind and CT leaf into one `Signing` value.

Everything here is pure: bytes in, values out, bounded time and memory for hostile input. Meaning stops at *what the
entry says*; whether it was expected is for `rules`, whether the log can be believed is for `monitor`.
"""
