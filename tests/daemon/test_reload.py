"""Rules change while entries stream in: each entry is judged once, by one whole set of rules, and gaps are exact.

The model knows which complete rule file was in force when an entry was read, and what each of its rules selects; what
the monitor keeps must be that and nothing else, in any order of writes, looks, passes, steps back and restarts.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.model.errors import BadConfig
from monitor.store.database import create
from monitor.store.fsck import fsck
from rules.rule_file import load_rules
from tests.support.alerts import NOW
from tests.support.looking_back import LookedBack
from tests.support.misbehaving_log import RekorV2Log
from tests.support.served_log import signing_body

REFS = ("refs/heads/a", "refs/heads/b", "refs/heads/c")
BODIES = [signing_body(ref) for ref in REFS]
HEAD = "version: 1\nrules:\n"


def rule(name: str, *refs: str) -> str:
    patterns = ", ".join(f'"https://github.com/acme/widget/.github/workflows/release.yml@{ref}"' for ref in refs)
    return f"  - id: {name}\n    select: {{identity: [{patterns}]}}\n"


A, B, C = REFS
# Files by what their rules select; each of another length, because a file system's clock may tick slowly.
FILES: dict[str, dict[str, tuple[str, ...]]] = {
    HEAD + rule("one", A) + rule("two", B): {"one": (A,), "two": (B,)},
    HEAD + rule("one", A): {"one": (A,)},
    HEAD + rule("one", A, B) + rule("two", B): {"one": (A, B), "two": (B,)},
    HEAD + rule("one", A) + rule("two", B) + rule("three", A, B, C): {"one": (A,), "two": (B,), "three": (A, B, C)},
}
BROKEN = [HEAD + "  - id: [\n", HEAD + rule("one", A) + "  - {id: one, select: {}}\n", "", "\0"]

ACTIONS = st.one_of(
    st.tuples(st.just("grow"), st.lists(st.sampled_from(range(3)), min_size=1, max_size=9)),
    st.tuples(st.just("pass"), st.none()),
    st.tuples(st.just("write"), st.sampled_from([*FILES, *BROKEN])),
    st.tuples(st.just("replace"), st.sampled_from([*FILES, *BROKEN])),
    st.tuples(st.just("write in parts"), st.sampled_from(list(FILES))),
    st.tuples(st.just("look"), st.booleans()),
    st.tuples(st.just("step"), st.none()),
    st.tuples(st.just("restart"), st.none()),
)


class Model:
    """What must be: `offered` holds, for each rule and what it selects, the entries it was offered."""

    def __init__(self, place: LookedBack) -> None:
        self.place = place
        self.entries: list[str] = []
        self.found: set[tuple[str, int]] = set()
        self.offered: dict[tuple[str, tuple[str, ...]], set[int]] = {}

    @property
    def in_force(self) -> dict[str, tuple[str, ...]]:
        """Rules of the one complete file that the held set must be."""
        held = self.place.rules.held.selections
        [known] = [rules for text, rules in FILES.items() if selections(text) == held]
        return known

    def offer(self, first: int, last: int, only: set[str] | None = None) -> None:
        for name, refs in self.in_force.items():
            if only is not None and name not in only:
                continue
            self.offered.setdefault((name, refs), set()).update(range(first, last))
            self.found |= {(name, index) for index in range(first, last) if self.entries[index] in refs}

    def check(self) -> None:
        place = self.place
        position = place.store.position(place.name)
        assert position is not None
        known = {(name, index) for name in ("one", "two", "three") for index in place.found(name)}
        assert known == self.found
        for name, refs in self.in_force.items():
            ranges = place.store.coverage.of_rule(place.name, name, place.rules.held.selections[name]).ranges
            covered = {index for first, last in ranges for index in range(first, last)}
            assert covered == self.offered.get((name, refs), set()), f"{name} shows exactly what it was offered"


def selections(text: str) -> dict[str, str]:
    return {each.id: each.selection_id() for each in load_rules(text).rules}


@pytest.fixture(scope="module")
def empty() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "signwatch.db"
        create(str(path), NOW, "test").close()
        yield path


def write_in_place(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)


def act(model: Model, action: str, value: object) -> None:
    place = model.place
    match action, value:
        case "grow", list(numbers):
            place.log.append(*[BODIES[number] for number in numbers])
            model.entries += [REFS[number] for number in numbers]
        case "pass", _:
            before = size_of(place)
            [outcome] = place.watch.run_pass()
            assert outcome.owner is None
            model.offer(before, size_of(place))
        case (("write" | "replace" | "write in parts"), str(text)):
            change_file(model, action, text)
        case "look", bool(asked):
            look(model, asked=asked)
        case "step", _:
            before_step = {name: set(covered(place, name)) for name in model.in_force}
            place.backscan.step()
            place.clock.advance(minutes=1)
            for name in model.in_force:
                for index in set(covered(place, name)) - before_step[name]:
                    model.offer(index, index + 1, {name})
        case "restart", _:
            with contextlib.suppress(BadConfig):
                # A daemon that finds a broken file does not start: the one before stays for the sake of the test.
                place.restart()


def change_file(model: Model, how: str, text: str) -> None:
    path = model.place.folder / "rules.yaml"
    if how == "replace":
        beside = path.with_suffix(".new")
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    elif how == "write":
        write_in_place(path, text)
    else:
        # Every part that ends with a whole rule is a rule file of its own; each is looked at.
        for end in [index + 1 for index, char in enumerate(text) if char == "\n"]:
            write_in_place(path, text[:end])
            look(model, asked=end % 2 == 0)


def look(model: Model, *, asked: bool) -> None:
    rules = model.place.rules
    if rules.is_due(asked=asked):
        with contextlib.suppress(BadConfig):
            rules.reload()
    assert model.in_force, "never a part of a file"


def covered(place: LookedBack, name: str) -> Iterator[int]:
    ranges = place.store.coverage.of_rule(place.name, name, place.rules.held.selections[name]).ranges
    return (index for first, last in ranges for index in range(first, last))


def size_of(place: LookedBack) -> int:
    position = place.store.position(place.name)
    return 0 if position is None else position.frontier.size


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(actions=st.lists(ACTIONS, min_size=5, max_size=25))
def test_no_entry_is_lost_judged_twice_or_judged_by_half_a_file(empty: Path, actions: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(empty, folder / "signwatch.db")
        first = next(iter(FILES))
        place = LookedBack(folder, RekorV2Log(), "all", rate=2, rules=first)
        with closing(place.store):
            place.watch.baseline(0)
            model = Model(place)
            for action, value in [("pass", None), *actions]:
                act(model, action, value)
            write_in_place(folder / "rules.yaml", list(FILES)[3])
            for action, value in [("look", False), ("look", False), ("pass", None)]:
                act(model, action, value)
            assert model.in_force == FILES[list(FILES)[3]], "in the end the last file is in force"
            model.check()
            place.clock.advance(minutes=1)
            for _ in range(200):
                missing = [each for each in place.gaps() if each]
                if not missing:
                    break
                act(model, "step", None)
            model.check()
            assert place.gaps() == [], "what was lacking is offered in the end"
            wanted = {
                (rule_id, index)
                for rule_id, refs in model.in_force.items()
                for index, ref in enumerate(model.entries)
                if ref in refs
            }
            assert wanted <= model.found
            assert fsck(place.store.database) == []
