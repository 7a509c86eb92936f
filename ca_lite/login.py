"""Login at the CA's own issuer: a person proves an address with a password, or with the development login's secret."""

import hmac
import threading
from collections.abc import Callable
from typing import Final, Protocol

from typing_extensions import override

from ca_lite.identity import is_email
from ca_lite.rate_limit import RateLimiter
from ca_lite.users import LONGEST, User, Users, folded, is_password, unused_hash

# One guess takes 64 MiB of memory, so only a few are computed at once.
_AT_ONCE: Final = 2
_GUESSES_PER_MINUTE: Final = 5.0
_GUESSES_AT_ONCE: Final = 5
_ADDRESS_GUESSES_PER_MINUTE: Final = 30.0
_ADDRESS_GUESSES_AT_ONCE: Final = 30
_NAME_LENGTH: Final = 320


class TooManyGuesses(Exception):
    """Too many guesses; `seconds` until the next one is taken."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many attempts; try again in {seconds} seconds")
        self.seconds = seconds


class Guesses:
    """Limits guesses: few per e-mail address, more per network address."""

    def __init__(self) -> None:
        self._per_name = RateLimiter(_GUESSES_PER_MINUTE, _GUESSES_AT_ONCE)
        self._per_address = RateLimiter(_ADDRESS_GUESSES_PER_MINUTE, _ADDRESS_GUESSES_AT_ONCE)

    def take(self, name: str, address: str, now: float) -> None:
        """Count a guess; `now` is in monotonic seconds. Raises `TooManyGuesses`."""
        waits = self._per_address.wait_seconds(address, now), self._per_name.wait_seconds(name[:_NAME_LENGTH], now)
        if wait := max(waits):
            raise TooManyGuesses(wait)


class Login(Protocol):
    """Proves a person's e-mail address. `is_development`: a shared secret is the only proof."""

    is_development: bool

    def sign_in(self, email: str, secret: str, address: str, now: float) -> str | None:
        """The proven e-mail address, or None. `address` is the client's network address. Raises `TooManyGuesses`."""

    def may_sign_in(self, email: str) -> bool:
        """True if a person whose address was proven shortly before may still sign in."""


class PasswordLogin(Login):
    """Users with passwords. An unknown or disabled user costs the same time as a wrong password."""

    is_development = False

    def __init__(self, users: Callable[[], Users]) -> None:
        self._users = users
        self._guesses = Guesses()
        self._slots = threading.BoundedSemaphore(_AT_ONCE)
        self._unknown = User("", unused_hash(), "", disabled=True)

    @override
    def sign_in(self, email: str, secret: str, address: str, now: float) -> str | None:
        name = folded(email)
        self._guesses.take(name, address, now)
        user = self._users().get(name, self._unknown)
        with self._slots:
            proven = is_password(user.hash, secret[: LONGEST + 1])
        return user.email if proven and not user.disabled else None

    @override
    def may_sign_in(self, email: str) -> bool:
        user = self._users().get(folded(email))
        return user is not None and not user.disabled


class DevelopmentLogin(Login):
    """One secret whose holder can sign in under any address: for drills and development."""

    is_development = True

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self._guesses = Guesses()

    @override
    def sign_in(self, email: str, secret: str, address: str, now: float) -> str | None:
        if not self._secret or not hmac.compare_digest(secret.strip().encode(), self._secret):
            # Only failures count: drills sign in often, and the secret is too long to guess.
            self._guesses.take("", address, now)
            return None
        return email.strip() if is_email(email.strip()) else None

    @override
    def may_sign_in(self, email: str) -> bool:
        return is_email(email)
