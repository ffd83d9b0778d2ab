"""Reaching stores through fsspec: s3://, gs://, az://, https:// …

Credentials are those that each store's own package finds: environment variables, files in the home
folder, the machine's role. What fails for a reason that can pass, such as an answer of 503 or a
broken connection, is tried again, a little later each time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from edgetl.errors import DataError, EdgetlError, MissingDependencyError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

T = TypeVar("T")

PAUSES: tuple[float, ...] = (0.5, 1, 2, 4, 8)
"""Seconds before another try."""
PATIENT_PAUSES: tuple[float, ...] = (*PAUSES, 15, 30, 60, 60, 60)
"""Seconds before another try of what a whole run depends on."""
S3 = ("s3://", "s3a://")
"""What addresses in S3 start with."""
_is_away = False  # whether the last tries were all in vain
_FINAL = (
    *(FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError),
    *(ImportError, ValueError, TypeError, NotImplementedError),
)
# They log, with tracebacks, what they raise, too.
_LOGGERS = ("adlfs", "azure", "fsspec", "gcsfs", "google", "s3fs")
_MAY_PASS_STATUS = (408, 425, 429)  # of HTTP's client errors
# Of botocore, google-auth and azure-identity, which are not imported for their names.
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError")


def open_store(address: str) -> tuple[AbstractFileSystem, str]:
    """(store, path in it). Raises DataError for an address with a password."""
    user, at, host = address.partition("://")[2].partition("/")[0].rpartition("@")
    if at and ":" in user:
        raise DataError(
            f"An address of {host} has a password in it, which results and messages would show.",
            "Leave it out, and give credentials as the store's own package reads them.",
        )
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingDependencyError("fsspec", f"Reading {address}", "remote") from error
    for name in _LOGGERS:  # without a handler, Python would print it
        if not logging.getLogger(name).handlers:
            logging.getLogger(name).addHandler(logging.NullHandler())
    # A listing of millions of objects would stay in memory, and another program may add some.
    store, path = url_to_fs(address, use_listings_cache=False, **_options(address))
    return store, path


def is_web(address: str) -> bool:
    """Whether it is the address of a web page or file."""
    return address.startswith(("http://", "https://"))


def tried(
    make_error: Callable[[str, BaseException], Exception],
    address: str,
    action: Callable[[], T],
    *,
    patient: bool = False,
) -> T:
    """What ``action`` returns, tried again where its exception may not come again.

    make_error  an exception for (address, cause)
    patient     try for some minutes, not for half of one

    Raises what ``make_error`` makes, MissingDependencyError.
    """
    try:
        return _retried(action, patiently=patient)
    except EdgetlError:
        raise
    except ImportError as error:
        raise _missing_package(address, error) from error
    except Exception as error:
        raise make_error(address, cause_of(error)) from error


def store_error(
    kind: type[EdgetlError], verb: Literal["read", "write"], address: str, cause: BaseException
) -> EdgetlError:
    """The error of a place: what is wrong with it, and what to do."""
    if isinstance(cause, FileNotFoundError):
        return kind(f"There is no {address}.", "Check the address; does the bucket exist?")
    if is_refused(cause):
        return kind(
            f"{address}: the store refuses access ({_text(cause)}).",
            f"Set the store's usual credentials, such as {_credentials(address)}, and check what "
            f"they may {verb}.",
        )
    if isinstance(cause, ValueError) and str(cause).startswith("Protocol not known"):
        return kind(
            f"{address}: {address.partition('://')[0]}:// is no kind of address that fsspec knows.",
            "Use one such as s3://, gs://, az:// or https://, or install the package for it.",
        )
    failed = "read" if verb == "read" else "written"
    return kind(
        f"{address} can't be {failed}: {_text(cause)}.", "Check the address and the connection."
    )


def cause_of(error: BaseException) -> BaseException:
    """The error itself, or what fsspec's HTTP calls a missing file, such as an answer of 503."""
    cause = error.__cause__
    is_http = cause is not None and type(cause).__module__.startswith("aiohttp")
    if cause is None or not is_http or getattr(cause, "status", None) == 404:
        return error
    return cause


def is_refused(error: BaseException) -> bool:
    """Whether the store does not let us in."""
    return (
        isinstance(error, PermissionError)
        or str(error).startswith("Forbidden: ")  # gcsfs's OSError
        or _status(error) in (401, 403)
        or type(error).__name__ in _NO_CREDENTIALS
    )


def _retried(action: Callable[[], T], *, patiently: bool) -> T:
    """What ``action`` returns, tried again where its exception may not come again.

    Once all tries were in vain, others are made only once, until one succeeds: while a store is
    away, a million photos must not be waited for one by one.

    patiently  for minutes, and however often that was in vain before
    """
    global _is_away
    for pause in (*(PATIENT_PAUSES if patiently else PAUSES), None):
        try:
            found = action()
        except Exception as error:
            if _is_final(cause_of(error)):
                raise
            if not patiently:
                _is_away = _is_away or pause is None
            if pause is None or (_is_away and not patiently):
                raise
            time.sleep(pause)
        else:
            _is_away = False
            return found
    raise AssertionError("the last try returns or raises")


def _options(address: str) -> dict[str, Any]:
    """botocore would try again for minutes, inside of each try here."""
    if address.startswith(S3):
        return {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
    return {}


def _is_final(error: BaseException) -> bool:
    status = _status(error)
    if status is not None and 400 <= status < 500:
        return status not in _MAY_PASS_STATUS
    return isinstance(error, (*_FINAL, EdgetlError)) or is_refused(error)


def _status(error: BaseException) -> int | None:
    """The status of an HTTP response, as aiohttp, Azure's package or gcsfs calls it."""
    names = ("status", "status_code", "code")
    return next((s for name in names if isinstance(s := getattr(error, name, None), int)), None)


def _credentials(address: str) -> str:
    """Environment variables that the store's own package reads."""
    if address.startswith(("gs://", "gcs://")):
        return "GOOGLE_APPLICATION_CREDENTIALS"
    if address.startswith(("az://", "abfs://", "abfss://")):
        return "AZURE_STORAGE_CONNECTION_STRING"
    return "AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


def _missing_package(address: str, error: ImportError) -> MissingDependencyError:
    package = (error.name or "").partition(".")[0]
    for word in str(error).split():  # fsspec: "Install s3fs to access S3"
        if word in ("s3fs", "gcsfs", "adlfs", "aiohttp"):
            package = word
    return MissingDependencyError(package or "a package", f"Reading {address}", "remote")


def _text(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
