"""`python -m tests.crash.dying FOLDER WHICH PART PARTS`: dies at one step after another, restarts, and compares.

WHICH is `distinct` (a step before which something lasting changed since the step before it: dying at any other step
leaves the very same files) or `every`, which also goes on to the story's end. Prints one JSON line of figures, and its
progress on standard error; exits 1 with the first thing that differs.
"""

import json
import logging
import sys
from pathlib import Path

from tests.crash.forking import Steps, live
from tests.crash.outcome import check_remains
from tests.crash.scene import STAGES
from tests.crash.undisturbed import Undisturbed
from tests.support.progress import told


def die(undisturbed: Undisturbed, stage: int, step: int, last: int) -> None:
    """Die at a step, look at what is left, restart, live until the stage `last` is over, and compare."""
    home = undisturbed.before(stage)
    steps = Steps(step)
    survived = live(home, [stage], steps.around, steps.count)
    assert survived is None, f"it was to die there and took only {survived} steps"
    if STAGES[stage] != "init":
        check_remains(home, stage)
    assert live(home, range(stage, last + 1), Steps().around, lambda: True, number=1), "the restart did not get through"
    undisturbed.compare(home, last)


def main(folder: Path, which: str, part: int, parts: int) -> None:
    """Die at every `parts`-th of the chosen steps, from the `part`-th on."""
    logging.disable(logging.CRITICAL)
    undisturbed = Undisturbed(folder)
    stages, every = range(len(STAGES)), which == "every"
    chosen = [(stage, step) for stage in stages for step in undisturbed.steps(stage, every=every)]
    for stage, step in told(chosen[part::parts], "deaths"):
        try:
            die(undisturbed, stage, step, stages[-1] if every else stage)
        except AssertionError as error:
            print(f"died at step {step} of {STAGES[stage]!r}: {error}")
            sys.exit(1)
    for stage in stages:
        steps = Steps(undisturbed.count(stage) + 1)
        taken = live(undisturbed.before(stage), [stage], steps.around, steps.count)
        assert taken == undisturbed.count(stage), "one step after the last one there is nothing to die at"
    print(json.dumps({"deaths": len(chosen[part::parts]), "of": len(chosen)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
