"""Where a server of ours listens: whether it can is known before a model loads."""

from __future__ import annotations

import socket

from .shared import UsageError


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there, for whoever serves from it; or, closed, only to have asked.

    Args:
        host (`str`): The address to listen at.
        port (`int`): 0 for any free one.

    Raises:
        UsageError: If somebody else does, or there is no such address.
    """
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048
        )
    except OSError as error:
        raise UsageError(f"--host {host} --port {port}: {error.strerror or error}") from error


def port(text: str) -> int:
    """The type of `--port`."""
    number = int(text)
    if not 0 <= number < 2**16:
        raise ValueError
    return number
