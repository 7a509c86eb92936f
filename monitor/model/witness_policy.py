"""Witness cosignatures as a policy: of n chosen witnesses, k must have cosigned exactly the shown head.

A log that shows each visitor a separate history would have to deceive k witnesses as well. Missing cosignatures do
not accuse the log: a witness may be down, or the log may not have asked it. So they count as a missing answer, never
as a lie. A cosignature is valid as long as a head is fresh: a replayed head comes with its old cosignatures.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field

from alerts.alert import counted, rfc3339
from monitor.model.log_source import CLOCK_SKEW, SignedHead
from settings.document import Misplaced, Node
from settings.reading import Fields, read_list, read_number, read_text

if TYPE_CHECKING:
    from tlog.cosignature import WitnessKey

WITNESS_KEYS: Final = ("required", "keys")
MAX_WITNESSES: Final = 64


class WitnessPolicy(Struct, frozen=True):
    """At least `required` of `witnesses` must have cosigned.

    Two keys with one name are one witness during a rotation. Raises `ValueError` for a policy that no head or every
    head meets.
    """

    required: int
    witnesses: "tuple[WitnessKey, ...]"

    def __post_init__(self) -> None:
        """Check that some heads meet the policy and some do not."""
        if not 1 <= self.required <= len(self.names):
            raise ValueError(f"{self.required} of {len(self.names)} witnesses can never be required")

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each witness once, in the order given."""
        return tuple(dict.fromkeys(key.name for key in self.witnesses))


class Cosigning(Struct, frozen=True):
    """The witnesses of a policy that cosigned one head; `enough` if the policy is met.

    `last` is the time of each witness's newest cosignature; a witness with an old cosignature is `missing` too.
    """

    present: tuple[str, ...]
    missing: tuple[str, ...]
    enough: bool
    last: Mapping[str, datetime] = field(default_factory=dict)


class WitnessStatus(Struct, frozen=True):
    """State of a log's witnesses: the time since which each is missing, and the time since which too many are.

    `short_since` is `None` while enough cosign.
    """

    missing_since: tuple[tuple[str, datetime], ...] = ()
    short_since: datetime | None = None


class WitnessReport(Struct, frozen=True):
    """State of the witnesses of a log's newest head, for reports."""

    required: int
    cosigning: Cosigning
    status: WitnessStatus

    @property
    def line(self) -> str:
        """One sentence without a full stop."""
        told = f"cosigned by {len(self.cosigning.present)} of {counted(self.required, 'wanted witness')}"
        missing = ", ".join(f"{name} since {rfc3339(at)}" for name, at in self.status.missing_since)
        return f"{told}; missing: {missing}" if missing else told

    def document(self) -> dict[str, Any]:
        """Plain JSON types for scripts."""
        short = self.status.short_since
        return {
            "required": self.required,
            "enough": self.cosigning.enough,
            "cosigned_by": list(self.cosigning.present),
            "missing": [{"witness": name, "since": rfc3339(at)} for name, at in self.status.missing_since],
            "too_few_since": rfc3339(short) if short else None,
        }


def judge(policy: WitnessPolicy, head: SignedHead, now: datetime, fresh_for: timedelta | None) -> Cosigning:
    """Compare a head with the policy. Its cosignatures are verified.

    SPEC tlog-cosignature: a cosignature's timestamp is the time at which it was made, so a cosignature older than
    `fresh_for`, or from the future, says nothing about the witness's present view. With `None` no newer cosignature
    is expected.
    """
    last: dict[str, datetime] = {}
    for name, at in zip(head.cosigned_by, head.cosigned_at, strict=True):
        last[name] = max(at, last.get(name, at))
    fresh = {name for name, at in last.items() if fresh_for is None or now - fresh_for <= at <= now + CLOCK_SKEW}
    present = tuple(name for name in policy.names if name in fresh)
    missing = tuple(name for name in policy.names if name not in fresh)
    known = {name: at for name, at in last.items() if name in policy.names}
    return Cosigning(present, missing, len(present) >= policy.required, known)


def follow_up(policy: WitnessPolicy, before: WitnessStatus, cosigning: Cosigning, now: datetime) -> WitnessStatus:
    """The status after a head was judged at `now`; a witness that was missing before keeps its `since`.

    A witness that cosigned the head too long ago is missing since then.
    """
    known = dict(before.missing_since)
    missing = tuple((name, known.get(name) or min(cosigning.last.get(name, now), now)) for name in cosigning.missing)
    if cosigning.enough:
        return WitnessStatus(missing, None)
    # The policy was last met at the time of the cosignature that completed the required number.
    latest = sorted((min(at, now) for at in cosigning.last.values()), reverse=True)[: policy.required]
    began = latest[-1] if len(latest) == policy.required else now
    return WitnessStatus(missing, before.short_since or began)


def read_witnesses(node: Node) -> WitnessPolicy:
    """Read `{required: 2, keys: [vkey, …]}` of a log in the configuration. Raises `Misplaced`."""
    fields = Fields(node, WITNESS_KEYS, "witnesses")
    keys = read_list(fields.need("keys"), _read_key)
    if len(keys) > MAX_WITNESSES:
        raise Misplaced(f"more than {MAX_WITNESSES} witnesses", node)
    if len({(key.name, key.raw) for key in keys}) < len(keys):
        raise Misplaced("a witness key is listed twice; it counts once", node)
    required = fields.need("required")
    try:
        return WitnessPolicy(read_number(required), keys)
    except ValueError:
        names = len({key.name for key in keys})
        raise Misplaced(
            f"`required` is from 1 to {names}: that many witnesses are named under `keys`", required
        ) from None


def _read_key(node: Node) -> "WitnessKey":
    # They bring `cryptography`, which a configuration without witnesses does not need.
    from tlog.cosignature import parse_witness_vkey  # noqa: PLC0415
    from tlog.note import MalformedNote  # noqa: PLC0415

    try:
        return parse_witness_vkey(read_text(node))
    except MalformedNote as error:
        raise Misplaced(f"not a witness's verifier key (name+key id+base64): {error}", node) from None
