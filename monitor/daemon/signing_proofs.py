"""One signing with its proof, as `signwatch evidence verify` checks it: from the archive, else from the log."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from monitor.config import ArchiveConfig
from monitor.model.errors import FetchFailed, OwnFault
from monitor.model.log_source import LogSource
from monitor.proof.evidence import NotEvidence
from monitor.proof.signing_proof import ProvenSignings, proof_from_log, to_document
from monitor.store.store import Store
from tlog.merkle import leaf_hash


class SigningProofs(Struct, frozen=True):
    """Builds the proof of an entry that following proved, from the archive or, if it is not there, from `sources`."""

    store: Store
    sources: Callable[[], Sequence[LogSource]]
    archive: ArchiveConfig | None

    def document(self, log: str, index: int, leaf: bytes, about: Mapping[str, Any]) -> dict[str, Any]:
        """The file's document. `about` names its subject for people.

        Raises `FetchFailed` when the log does not answer or gives another proof, `OwnFault`.
        """
        proven = self._archived(log, index, leaf) or self._from_log(log, index, leaf)
        return to_document([proven], about)

    def _archived(self, log: str, index: int, leaf: bytes) -> ProvenSignings | None:
        if self.archive is None:
            return None
        from monitor.archive.files import ArchiveFault, ArchiveFiles  # noqa: PLC0415  imports pyarrow
        from monitor.archive.proofs import RunProver  # noqa: PLC0415
        from monitor.archive.writing import read_manifest  # noqa: PLC0415

        try:
            files = ArchiveFiles(self.archive.location)
            manifest = read_manifest(files, log)
            run = None if manifest is None else manifest.run_at(index)
            if manifest is None or run is None:
                return None
            proven = RunProver(files, manifest, run).prove([index], {index: leaf})
        except ArchiveFault:
            # The archive is damaged, or holds another entry at this index, so the log is asked.
            return None
        return proven

    def _from_log(self, log: str, index: int, leaf: bytes) -> ProvenSignings:
        position = self.store.position(log)
        if position is None or index >= position.frontier.size:
            raise OwnFault(f"{log}: entry {index} is behind the part of the log that was proven")
        source = next((each for each in self.sources() if each.identity.log == log), None)
        if source is None:
            raise FetchFailed(f"{log} cannot be asked for the proof now")
        try:
            return proof_from_log(source, position.head.head, index, leaf)
        except NotEvidence as error:
            raise FetchFailed(
                f"{log} gives a proof for entry {index} that does not show leaf hash {leaf_hash(leaf).hex()}: {error}"
            ) from error
