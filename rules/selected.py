"""The signers of an entry that a rule selected, and who vouches for each: the value that travels with a match.

An entry may carry other people's signatures beside the one that a rule is about, and unchecked names. So the
past, leave that is used up, and the answer to an awaited entry come from `Selected.vouched` and from nothing else.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from rules.selection import AllOf, AnyOf, Condition, Match, matching_signers
from sigstore_entries.signing import ChainTrust, SignatureCheck, Signer, SignerForm, Signing


class Voucher(StrEnum):
    """Why a selected signer counts as the one that the rule means, or why it does not."""

    AUTHORITY = "authority"
    """A certificate authority of the trust root issued the certificate."""
    FINGERPRINT = "fingerprint"
    """The rule names this very key or certificate."""
    NO_NAME = "no-name"
    """A key that the rule selected by something else than a name or a fingerprint, or an entry without a signer."""
    NOT_CHECKED = "not-checked"
    """The certificate's chain was not judged."""
    UNTRUSTED_CHAIN = "untrusted-chain"
    """A certificate that no authority of the trust root issued: anyone can make one, with any name in it."""
    NAME_ALONE = "name-alone"
    """A key selected by a name that anyone can put on a key of their own (a PGP user ID)."""
    WRONG_SIGNATURE = "wrong-signature"
    """The entry's signature is not that of this key or certificate: it says nothing about its alleged signer."""

    ONLY_LISTED = "only-listed"
    """The entry lists this key or certificate, and another one made its signature: anyone can list it."""
    SIGNER_UNKNOWN = "signer-unknown"
    """The entry lists several keys or certificates and does not show whether this one made its signature."""


_BY_CHAIN = {ChainTrust.TRUSTED: Voucher.AUTHORITY, ChainTrust.NOT_CHECKED: Voucher.NOT_CHECKED}
_VOUCHED = frozenset({Voucher.AUTHORITY, Voucher.FINGERPRINT})
_UNVERIFIED = frozenset({Voucher.UNTRUSTED_CHAIN, Voucher.NAME_ALONE, Voucher.WRONG_SIGNATURE, Voucher.ONLY_LISTED})


@dataclass(frozen=True, slots=True)
class SelectedSigner:
    """One selected signer; `signer` is `None` where the entry names none."""

    signer: Signer | None
    voucher: Voucher

    @property
    def is_vouched(self) -> bool:
        """Whether the signature is that of the signer the rule means."""
        return self.voucher in _VOUCHED

    @property
    def is_unverified(self) -> bool:
        """Whether anyone could have made the entry without having anything of the alleged signer."""
        return self.voucher in _UNVERIFIED

    @property
    def believed(self) -> Signer | None:
        """The signer as far as it is believed: of a self-made certificate around a named key, the key alone."""
        signer = self.signer
        if signer is None or self.voucher is not Voucher.FINGERPRINT or signer.trust is not ChainTrust.UNTRUSTED:
            return signer
        return Signer(SignerForm.KEY, fingerprints=signer.fingerprints, trust=ChainTrust.NO_CERTIFICATE)


@dataclass(frozen=True, slots=True)
class Selected:
    """What one rule selected of one entry, in the entry's order."""

    signing: Signing
    signers: tuple[SelectedSigner, ...]

    @property
    def vouched(self) -> tuple[Signer, ...]:
        """Signers that count as the past, use up leave and answer awaited entries."""
        return tuple(each.believed for each in self.signers if each.is_vouched and each.believed is not None)

    @property
    def certificates(self) -> frozenset[bytes]:
        """Trusted certificates of the whole entry (`Signer.issued`): none of them is the past of this entry."""
        return frozenset(signer.issued for signer in self.signing.signers if signer.issued is not None)


def select(condition: Condition, signing: Signing) -> Selected:
    """Select the signers that a condition holds for. Chains must have been judged before (`Signer.trust`)."""
    return Selected(
        signing,
        tuple(
            SelectedSigner(signer, _voucher(condition, signing, signer))
            for signer in matching_signers(condition, signing)
        ),
    )


def _voucher(condition: Condition, signing: Signing, signer: Signer | None) -> Voucher:
    if signer is None:
        return Voucher.NO_NAME
    if signer.signature is SignatureCheck.WRONG:
        return Voucher.WRONG_SIGNATURE
    if signer.trust in _BY_CHAIN:
        return _listed(signer) or _BY_CHAIN[signer.trust]
    if names_key(condition, signing, signer):
        return _by_fingerprint(condition, signing, signer)
    if signer.trust is ChainTrust.UNTRUSTED:
        return Voucher.UNTRUSTED_CHAIN
    nameless = replace(signer, names=())
    return Voucher.NO_NAME if condition.holds(signing, nameless) else Voucher.NAME_ALONE


def _listed(certified: Signer) -> Voucher | None:
    """Why a certificate in the entry is not known to have signed it."""
    if certified.only_listed:
        return Voucher.ONLY_LISTED
    return Voucher.SIGNER_UNKNOWN if certified.maybe_signed else None


def _by_fingerprint(condition: Condition, signing: Signing, signer: Signer) -> Voucher:
    """Whether a key that the rule names made the signature, or is only listed beside the one that did."""
    others = {*signer.only_listed, *signer.maybe_signed}
    if names_key(condition, signing, _with_keys(signer, lambda key: key not in others)):
        return Voucher.FINGERPRINT
    if names_key(condition, signing, _with_keys(signer, lambda key: key not in signer.only_listed)):
        return Voucher.SIGNER_UNKNOWN
    return Voucher.ONLY_LISTED


def _with_keys(signer: Signer, is_wanted: Callable[[str], bool]) -> Signer:
    return replace(signer, fingerprints=tuple(key for key in signer.fingerprints if is_wanted(key)))


def names_key(condition: Condition, signing: Signing, signer: Signer) -> bool:
    """Whether the condition holds for this signer and a fingerprint condition that holds is one reason for it."""
    if isinstance(condition, Match):
        return condition.field == "fingerprint" and condition.holds(signing, signer)
    if not isinstance(condition, (AllOf, AnyOf)) or not condition.holds(signing, signer):
        return False
    return any(names_key(each, signing, signer) for each in condition.conditions)
