"""One client for every model behind an OpenAI-compatible address: annotators, judges, remote editors."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from itertools import islice
from threading import Condition
from time import sleep
from typing import Any, TypeVar

from PIL import Image


try:  # the client that huggingface_hub brings along: httpx2 since its version 2, httpx before
    import httpx2 as httpx
except ImportError:
    import httpx

from .images import FORMATS, to_png
from .images.download import download


Item = TypeVar("Item")
Result = TypeVar("Result")

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds, of the back-off
LONGEST_RETRY_AFTER = 300.0  # seconds; a server that asks for more is given up at once

_HINTS = {
    401: " Check `api_key`.",
    403: " Check `api_key` and what it may use.",
    404: " Check `base_url` (it often ends in /v1) and `model`.",
}


class EndpointError(Exception):
    """A request that failed for good. `status` is the HTTP status, or None if no (usable) answer came."""

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Args:
        text (`str`): Its message; empty if it has none, as when all tokens went into hidden reasoning.
        model (`str`): The name under which the server answered, often more exact than the one that was asked for.
        usage (`dict`): What the server counted, such as `prompt_tokens`; empty if it does not count.
        failed_calls (`int`): How many tries failed before this answer came.
    """

    text: str
    model: str
    usage: dict[str, Any] = field(default_factory=dict)
    failed_calls: int = 0


class Endpoint:
    """A model behind an OpenAI-compatible address. It may be used from several threads at once.

    Status 408, 429 and 5xx, broken connections and timeouts are tried again, after a wait that doubles each time, with
    jitter, and is at least what the server's `Retry-After` asks for. Any other fault is an error at once.

    Args:
        base_url (`str`): What comes before `/chat/completions`, such as `"http://localhost:8000/v1"`.
        model (`str`): The model's name there.
        api_key (`str`, *optional*): Sent as a bearer token. Local servers need none.
        timeout (`float`, defaults to 60): Seconds without any answer after which a try counts as failed.
        max_retries (`int`, defaults to 5): How often a request is tried again: 0 or more.

    Raises:
        ValueError: If `base_url` is no HTTP address, or a number is out of range.

    Example:
        >>> with Endpoint("http://localhost:8000/v1", "Qwen/Qwen2.5-VL-7B-Instruct") as judge:  # doctest: +SKIP
        ...     judge.chat([{"role": "user", "content": "Hello"}], temperature=0).text
    """

    def __init__(
        self, base_url: str, model: str, api_key: str | None = None, timeout: float = 60, max_retries: int = 5
    ):
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"`base_url` begins with http:// or https://; got {base_url!r}.")
        if timeout <= 0 or max_retries < 0:
            raise ValueError(f"`timeout` is above 0 and `max_retries` 0 or more; got {timeout} and {max_retries}.")
        self.base_url = base_url.rstrip("/")
        self.model = model
        self.max_retries = max_retries
        self._api_key = api_key
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(headers=headers, timeout=timeout)
        self._change = Condition()  # of the two below
        self._under_way, self._closed = 0, False

    def chat(self, messages: Sequence[Mapping[str, Any]], **settings: Any) -> Answer:
        """The model's answer to a conversation.

        Args:
            messages (sequence of `dict`): `{"role": ..., "content": ...}`, the content a string or a list of parts.
                A part `{"type": "image", "image": picture}` is sent as a PNG in a data URL; the picture is a PIL one,
                upright as [`load_picture`] returns it. Other parts are sent as they are.
            settings: Further fields of the request, such as `temperature=0` or `max_tokens=512`.

        Returns:
            [`Answer`]: text, model and usage.

        Raises:
            EndpointError: If there is no answer after all tries, the server refuses, or what it sends is no answer.
            TypeError: If a picture is no PIL picture.
            ValueError: For `stream=True`.
        """
        if settings.get("stream"):
            raise ValueError("`stream` is not supported: the answer comes as a whole.")
        body = {"model": self.model, "messages": [sendable(message) for message in messages], **settings}
        reply, failed_calls = self._post("chat/completions", json=body)
        try:
            content = reply["choices"][0]["message"].get("content") or ""
            if not isinstance(content, str):
                content = "".join(part.get("text", "") for part in content)
            return Answer(content, reply.get("model") or self.model, reply.get("usage") or {}, failed_calls)
        except (AttributeError, IndexError, KeyError, TypeError):
            raise self._unusable("chat/completions", reply) from None

    def edit(self, image: Image.Image, prompt: str, **settings: Any) -> Image.Image:
        """The picture that a remote editor makes of a picture and a request.

        Args:
            image (`PIL.Image.Image`): Upright, as [`load_picture`] returns it.
            prompt (`str`): What to change.
            settings: Further fields of the request, such as `size="1024x1024"`; those that are None are left out.

        Returns:
            `PIL.Image.Image`: in the mode and size that the server chose.

        Raises:
            EndpointError: If there is no picture after all tries, the server refuses, or what it sends is none.
            TypeError: If `image` is no PIL picture.
        """
        fields = {"model": self.model, "prompt": prompt, **settings}
        reply, _ = self._post(
            "images/edits",
            data={name: _form_value(value) for name, value in fields.items() if value is not None},
            files={"image": ("image.png", to_png(image), "image/png")},
        )
        try:
            result = reply["data"][0]
            encoded = result.get("b64_json")
            # Without the client, whose key is nobody else's business; no other scheme than HTTP is taken.
            with io.BytesIO(base64.b64decode(encoded)) if encoded else download(result["url"]) as file:
                picture = Image.open(file, formats=FORMATS)
                picture.load()
            return picture
        # Whatever the server made up: Pillow alone answers damaged data with half a dozen kinds of exception.
        except Exception as error:
            raise self._unusable("images/edits", reply) from error

    def close(self) -> None:
        """Closes the connections, once the requests of other threads have been answered. Nothing is sent after that.

        A connection that is closed while a thread waits for its answer would leave that thread waiting.
        """
        with self._change:
            self._closed = True
            self._change.wait_for(lambda: self._under_way == 0)
        self._client.close()

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r}, {self.model!r})"  # the key stays out of logs

    def _post(self, path: str, **content: Any) -> tuple[Any, int]:
        """The JSON that the server answers, and after how many tries that failed."""
        for attempt in range(self.max_retries + 1):
            asked, status = 0.0, None
            try:
                with self._counted(path):
                    response = self._client.post(f"{self.base_url}/{path}", **content)
            except httpx.TransportError as error:
                fault = f"{type(error).__name__}: {error}"
            else:
                if response.is_success:
                    return self._json(path, response), attempt
                status = response.status_code
                fault = f"{status} {response.reason_phrase}: {_message(response)}"
                if status not in (408, 429) and status < 500:
                    raise self._error(path, fault + _HINTS.get(status, ""), status)
                asked = _retry_after(response)
            if attempt == self.max_retries:
                raise self._error(path, f"{fault} (after {attempt + 1} tries)", status)
            if asked > LONGEST_RETRY_AFTER:
                raise self._error(path, f"{fault} (the server asks to wait for {asked:.0f} s)", status)
            back_off = min(FIRST_WAIT * 2**attempt, LONGEST_WAIT)
            # On top of what was asked for, so that those who were turned away together do not return together.
            sleep(asked + back_off * random.uniform(0.5, 1))

    @contextmanager
    def _counted(self, path: str) -> Iterator[None]:
        with self._change:
            if self._closed:
                raise self._error(path, "this endpoint has been closed")
            self._under_way += 1
        try:
            yield
        finally:
            with self._change:
                self._under_way -= 1
                self._change.notify_all()

    def _json(self, path: str, response: Any) -> Any:
        try:
            return response.json()
        except ValueError:
            raise self._unusable(path, response.text) from None

    def _unusable(self, path: str, reply: Any) -> EndpointError:
        return self._error(path, f"the server's answer cannot be used: {str(reply)[:300]!r}")

    def _error(self, path: str, fault: str, status: int | None = None) -> EndpointError:
        text = f"{self.base_url}/{path}, model {self.model!r}: {fault}"
        # Some servers repeat the key that they refuse.
        return EndpointError(text.replace(self._api_key, "***") if self._api_key else text, status)


def map_concurrently(
    function: Callable[[Item], Result], items: Iterable[Item], limit: int
) -> Iterator[tuple[Item, Result | Exception]]:
    """Calls a function for every item, several at once in threads, and yields each result as soon as it is there.

    Args:
        function (`Callable`): Takes an item; what it raises is handed over as the result, and the others go on.
        items (`Iterable`): Read as far as it is worked on, so that it may be endless.
        limit (`int`): How many calls run at once: 1 or more.

    Yields:
        `tuple`: the item, and its result or the exception; in the order in which they finish.

    Raises:
        ValueError: If `limit` is below 1.

    Example:
        >>> sorted(map_concurrently(len, ["a", "bcd"], limit=2))
        [('a', 1), ('bcd', 3)]
    """
    if limit < 1:
        raise ValueError(f"`limit` is 1 or more; got {limit}.")
    return _map_concurrently(function, iter(items), limit)


def _map_concurrently(function: Callable, items: Iterator, limit: int) -> Iterator[tuple[Any, Any]]:
    with ThreadPoolExecutor(limit) as pool:
        running = {pool.submit(function, item): item for item in islice(items, limit)}
        while running:
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for call in finished:
                item = running.pop(call)
                running.update({pool.submit(function, following): following for following in islice(items, 1)})
                error = call.exception()
                yield item, call.result() if error is None else error


def sendable(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message with its PIL pictures as data URLs, as OpenAI-compatible models take it."""
    content = message.get("content")
    if isinstance(content, (list, tuple)):
        content = [_sendable_part(part) for part in content]
    return {**message, "content": content}


def _sendable_part(part: Any) -> Any:
    if not isinstance(part, Mapping) or part.get("type") != "image":
        return part
    data = base64.b64encode(to_png(part["image"])).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def _form_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _message(response: Any) -> str:
    """What the server says is wrong, in a line."""
    try:
        error = response.json()["error"]
        text = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError):
        text = response.text
    return " ".join(str(text).split())[:300] or "no message."


def _retry_after(response: Any) -> float:
    """The seconds that the server asks to wait for, which it says as a number or as a date; 0 if it says neither."""
    text = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())
