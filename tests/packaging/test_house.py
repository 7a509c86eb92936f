"""Bounds of the source that no tool of `make check` knows."""

import ast
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAKES_TRUSTED_HEADS = re.compile(r"monitor/(proof/\w+|store/history)\.py")
EXCEPTIONS_TO_COMPLEXITY = 5
ALIAS = re.compile(r"[A-Z]\w*[a-z]\w*")


def sources() -> Iterator[tuple[str, str]]:
    """Path and text of every Python file of the programs that Git knows."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if not name.startswith(("tests/", "benchmarks/")) and (ROOT / name).is_file():
            yield name, (ROOT / name).read_text("utf-8")


def calls_of(name: str, text: str) -> int:
    calls = (node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    return sum(name in {getattr(func, "id", ""), getattr(func, "attr", "")} for func in calls)


def test_a_head_is_trusted_by_a_proof_or_read_back_from_the_store_and_nowhere_else() -> None:
    makers = {path for path, text in sources() if calls_of("TrustedHead", text)}
    assert makers, "control: the name is still the same"
    assert {path for path in makers if not MAKES_TRUSTED_HEADS.fullmatch(path)} == set()


def test_few_functions_are_excepted_from_the_bound_on_complexity() -> None:
    excepted = [path for path, text in sources() for _ in range(text.count("noqa: C901"))]
    assert len(excepted) <= EXCEPTIONS_TO_COMPLEXITY, excepted


def type_names(text: str) -> Iterator[str]:
    """Public names of classes and type aliases in a source. The `Annotated` type of an option is no alias."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name
    for node in tree.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="TypeAlias")):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Subscript() | ast.BinOp() as value):
                if ALIAS.fullmatch(name) and not ast.unparse(value).startswith("Annotated["):
                    yield name


def test_the_name_of_a_class_has_one_meaning_in_all_rooms() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path, text in sources():
        for name in type_names(text):
            places[name].append(path)
    assert len(places) > 500, "control: classes were read"
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_a_record_is_a_struct_unless_only_a_dataclass_can_do_what_it_needs() -> None:
    unneeded, structs = [], 0
    for path, text in sources():
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.ClassDef):
                continue
            structs += any(ast.unparse(base) == "Struct" for base in node.bases)
            makers = [ast.unparse(each) for each in node.decorator_list]
            if not any(each.startswith(("dataclass", "dataclasses.")) for each in makers):
                continue
            has_reason = node.bases or re.search(r"\b(compare|repr)=False", ast.unparse(node))
            if not has_reason:
                unneeded.append(f"{path}: {node.name}")
    assert structs > 300, "control: structs were read"
    assert unneeded == []


def test_no_function_for_dataclasses_alone_is_given_records() -> None:
    # A type checker takes a struct for a dataclass: `dataclasses.asdict` of one fails only when the line runs.
    used = {
        f"{path}: {name.name}"
        for path, text in sources()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module == "dataclasses"
        for name in node.names
        if name.name in {"asdict", "astuple", "fields"}
    }
    assert used == set()
