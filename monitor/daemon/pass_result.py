"""Result of one pass over one tree."""

from datetime import datetime

from msgspec import Struct, field

from alerts.alert import Alert, Owner
from monitor.model.log_source import SignedHead
from monitor.model.witness_policy import WitnessReport


class PassResult(Struct):
    """Result of one pass over one tree. `owner` is the owner of its trouble, `None` when there was none.

    `answered` says that the log showed a signed head, consistent or not. `first` and `last` bound the entries that
    were read and judged; `findings` counts them by verdict, `dropped` the matches left out of them. `witnessed` is
    set if witnesses are required. `note` is a remark for people that is no trouble. `unrecorded` means that the
    trouble could not be recorded. `told` is the alert about the log itself that the pass enqueued although it read
    every entry.
    """

    log: str
    owner: Owner | None = None
    reason: str = ""
    detail: str = ""
    began: datetime | None = None
    first: int | None = None
    last: int | None = None
    head: SignedHead | None = None
    findings: dict[str, int] = field(default_factory=dict)
    unreadable: int = 0
    dropped: int = 0
    evidence: list[str] = field(default_factory=list)
    witnessed: WitnessReport | None = None
    answered: bool = False
    note: str = ""
    unrecorded: bool = False
    told: Alert | None = None

    @property
    def cosigned(self) -> bool:
        """False when fewer witnesses than required have cosigned the newest head."""
        return self.witnessed is None or self.witnessed.cosigning.enough
