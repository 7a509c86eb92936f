"""Files that an argument names: a file, the bundles in a folder, matches of a pattern, or standard input."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import typer

MAX_FILES: Final = 10_000
STANDARD_INPUT: Final = Path("-")
_SUFFIXES: Final = frozenset({".json", ".jsonl", ".sigstore", ".bundle", ".attestation", ".provenance"})


def files_named(names: Iterable[Path], passed_over: Callable[[Path, int], None]) -> Iterator[Path]:
    """Files that arguments name: a file, the files below a folder, matches of a pattern, or `-`.

    In a folder only files with a bundle's suffix are taken; `passed_over` gets the number of other files. Raises
    `typer.BadParameter`.
    """
    for number, file in enumerate(each for name in names for each in _files(name, passed_over)):
        if number >= MAX_FILES:
            raise typer.BadParameter(f"more than {MAX_FILES} files: name fewer at once", param_hint="FILE")
        yield file


def _files(name: Path, passed_over: Callable[[Path, int], None]) -> list[Path]:
    if name == STANDARD_INPUT or name.is_file():
        return [name]
    if name.is_dir():
        every = sorted(each for each in name.rglob("*") if each.is_file())
        found = [each for each in every if each.suffix in _SUFFIXES]
        if not found:
            wanted = ", ".join(sorted(_SUFFIXES))
            raise typer.BadParameter(f"{name}: no file in this folder is named like a bundle ({wanted})")
        if len(found) < len(every):
            passed_over(name, len(every) - len(found))
        return found
    if any(character in str(name) for character in "*?["):
        # A pattern that the shell did not expand.
        base = Path(name.anchor or ".")
        if found := sorted(each for each in base.glob(str(name.relative_to(name.anchor))) if each.is_file()):
            return found
        raise typer.BadParameter(f"{name}: no file matches", param_hint="FILE")
    return [name]
