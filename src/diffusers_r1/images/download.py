"""A file from the web, within bounds of size and time. Apart, since the client takes a while to import."""

from __future__ import annotations

import tempfile
from time import monotonic
from typing import BinaryIO
from urllib.parse import urljoin

import requests
import urllib3

from .reading import Unreachable


MAX_BYTES = 2**27  # 134 MB; a JPEG of 64 megapixels has a quarter of that
MAX_SECONDS = 120  # from the first word to the last byte
MAX_REDIRECTS = 5
_BUSY = (408, 425, 429)  # as all answers from 500 on
_TIMEOUT = (10, 30)  # seconds to connect, and without any byte
_PIECE = 2**16


def download(url: str, max_bytes: int = MAX_BYTES) -> BinaryIO:
    """The file at an address, as a temporary file on the disk that is deleted when it is closed.

    Args:
        url (`str`): Begins with `http://` or `https://`, in any case.
        max_bytes (`int`, defaults to 2**27): Of a longer file no more than this is fetched.

    Raises:
        Unreachable: If the server is not there, too busy or too slow: it may be otherwise later.
        ValueError: If it cannot be fetched, or is too long.
    """
    end = monotonic() + MAX_SECONDS
    try:
        with _Session() as session:
            # As it is: what a server packs could be far larger when it is unpacked.
            session.headers["Accept-Encoding"] = "identity"
            for _ in range(MAX_REDIRECTS + 1):
                with session.get(url, stream=True, timeout=_TIMEOUT) as response:
                    target = requests.Session.get_redirect_target(session, response)
                    if target is None:
                        return _content(response, max_bytes, end)
                    url = urljoin(url, target)
                    if not url.lower().startswith(("http://", "https://")):
                        raise ValueError(f"the server sends us to {url[:100]!r}.")
            raise ValueError(f"the server sends us on more than {MAX_REDIRECTS} times.")
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        # What is wrong with the address itself is a ValueError for `requests` as well.
        kind = ValueError if isinstance(error, ValueError) else Unreachable
        raise kind(f"the download failed: {_innermost(error)}.") from error


class _Session(requests.Session):
    """Leaves redirects to us: `requests` would read what comes with one to its end, however long it is."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def _content(response: requests.Response, max_bytes: int, end: float) -> BinaryIO:
    if not response.ok:
        kind = Unreachable if response.status_code in _BUSY or response.status_code >= 500 else ValueError
        raise kind(f"the server answers {response.status_code} {response.reason}.")
    too_long = f"the file is longer than {max_bytes:,} bytes."
    if (response.raw.length_remaining or 0) > max_bytes:
        raise ValueError(too_long)
    file = tempfile.TemporaryFile()
    try:
        # `read1` returns with whatever has come, so that a server that sends a byte now and then does not hold us.
        while piece := response.raw.read1(_PIECE, decode_content=False):
            file.write(piece)
            if file.tell() > max_bytes:
                raise ValueError(too_long)
            if monotonic() > end:
                raise Unreachable(f"the download takes longer than {MAX_SECONDS} seconds.")
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _innermost(error: BaseException) -> str:
    """What went wrong in the end: `requests` wraps it several times."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error)[:200].rstrip(".") or type(error).__name__
