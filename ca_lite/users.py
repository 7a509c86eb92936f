"""People who may sign in at the CA's own issuer: addresses with hashed passwords, in `private/users.json`."""

import fcntl
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from ca_lite.errors import ConfigError
from ca_lite.identity import is_email
from ca_lite.keys import read_limited, replace_secret

# NIST SP 800-63B-4 3.1.1.2: at least 15 characters where the password is the only factor, at least 64 permitted.
SHORTEST: Final = 15
LONGEST: Final = 256
_MAX_USERS: Final = 500
# RFC 9106 section 4, second recommended option: 64 MiB, three passes, four lanes.
_HASHER: Final = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=4)


class User(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One person. `hash` is argon2id in PHC string format, `added` RFC 3339 in UTC."""

    email: str
    hash: Annotated[str, msgspec.Meta(pattern=r"^\$argon2id\$")]
    added: str
    disabled: bool = False


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    users: list[User]


Users = Mapping[str, User]


def read_users(path: Path) -> Users:
    """Users by folded address; empty for a missing file. Raises `ConfigError`."""
    if not path.exists():
        return MappingProxyType({})
    try:
        listed = msgspec.json.decode(read_limited(path), type=_File).users
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise ConfigError(f"{path}: not the users that `ca-lite users` writes ({error}); restore the file") from error
    return MappingProxyType({folded(each.email): each for each in listed})


def folded(email: str) -> str:
    """The address without surrounding spaces and case-folded: two users never differ in case only."""
    return email.strip().casefold()


def hash_password(password: str) -> str:
    """Argon2id hash of a new password. Raises `ConfigError` where the password is too short or too long."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise ConfigError(f"a password has {SHORTEST} to {LONGEST} characters: it is all that proves who signs")
    return _HASHER.hash(password)


def is_password(user_hash: str, password: str) -> bool:
    """True if the password has this hash."""
    try:
        return _HASHER.verify(user_hash, password)
    except (Argon2Error, InvalidHashError):
        return False


def unused_hash() -> str:
    """Hash of a random text. A comparison with it takes as long as with a user's hash."""
    return _HASHER.hash(secrets.token_bytes(32))


@contextmanager
def changing(path: Path) -> Iterator[dict[str, User]]:
    """The users, for changes; written if the block ends without an error. A lock admits one process at a time.

    Raises `ConfigError`.
    """
    with path.with_name("users.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        users = dict(read_users(path))
        yield users
        if len(users) > _MAX_USERS:
            raise ConfigError(f"at most {_MAX_USERS} users; connect your company's issuer instead: `ca-lite connect`")
        listed = sorted(users.values(), key=lambda user: folded(user.email))
        replace_secret(path, msgspec.json.format(msgspec.json.encode(_File(listed)), indent=1) + b"\n")


def checked_email(email: str) -> str:
    """The address without white space around it. Raises `ConfigError`."""
    email = email.strip()
    if not is_email(email):
        raise ConfigError(f"{email!r:.200} is not an e-mail address that a certificate can hold")
    return email


def add_user(users: dict[str, User], email: str, password: str, added: str) -> None:
    """Add a person. Raises `ConfigError`."""
    email = checked_email(email)
    if known := users.get(folded(email)):
        raise ConfigError(f"{known.email} is a user already; `ca-lite users password` sets a new password")
    users[folded(email)] = User(email, hash_password(password), added)


def known_user(users: Mapping[str, User], email: str) -> User:
    """The user of an address. Raises `ConfigError`."""
    found = users.get(folded(email))
    if found is None:
        raise ConfigError(f"{email!r:.200} is not a user; `ca-lite users list` shows all of them")
    return found


def set_disabled(users: dict[str, User], email: str, *, disabled: bool) -> None:
    """Disable or enable a person's sign-in. Raises `ConfigError`."""
    found = known_user(users, email)
    users[folded(email)] = msgspec.structs.replace(found, disabled=disabled)


def set_password(users: dict[str, User], email: str, password: str) -> None:
    """Set a new password. Raises `ConfigError`."""
    found = known_user(users, email)
    users[folded(email)] = msgspec.structs.replace(found, hash=hash_password(password))
