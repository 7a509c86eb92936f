"""Lists of allowed digests, as `sha256sum` writes them or one digest a line."""

from typing import Final

from rules.selection import normal_digest

MAX_DIGESTS: Final = 1_000_000
MAX_SIZE: Final = 128 * 1024 * 1024


def parse_digest_list(text: str) -> frozenset[str]:
    """Digests as `sha256:…`. Empty lines and lines starting with `#` are skipped; what follows a digest is a name.

    Raises `ValueError` naming the line: a list that is half understood allows half of what it should.
    """
    if len(text) > MAX_SIZE:
        raise ValueError(f"the list of digests is larger than {MAX_SIZE // 2**20} MiB")
    found: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split(maxsplit=1)
        if not words or words[0].startswith("#"):
            continue
        try:
            # sha256sum puts a backslash before the digest of a file whose name it had to escape.
            found.add(normal_digest(words[0].removeprefix("\\")))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if len(found) > MAX_DIGESTS:
            raise ValueError(f"more than {MAX_DIGESTS} digests")
    return frozenset(found)
