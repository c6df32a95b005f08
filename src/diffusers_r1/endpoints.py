"""One client for every model behind an OpenAI-compatible address: planners, annotators, judges and editors.

The `openai` package sends, waits, and tries again. What it does not do is here: pictures go into messages and come out of
answers, an answer that cannot be used is asked for again, many calls run at once, and every failure is one line that says
what it means for the calls that follow and never holds a key.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import random
import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import numpy as np
from PIL import Image

from . import schema
from .images import FORMATS, load_picture, to_png, to_send
from .installing import install_line
from .records import Failure, write_whole


if TYPE_CHECKING:
    import httpx2
    from openai import APIResponse, APIStatusError, OpenAI


Item = TypeVar("Item")
Result = TypeVar("Result")
Remote = TypeVar("Remote", bound="RemoteModel")

logger = logging.getLogger(__name__)

KEY = "OPENAI_API_KEY"
KEY_HOME = "OPENAI_BASE_URL"  # the `openai` package's own variable: the address that the key belongs to
LONGEST_CONNECT = 10.0  # seconds
FIRST_WAIT, LONGEST_WAIT = (
    0.5,
    8.0,
)  # seconds before an unusable answer is asked for again; the client's own for the rest
LARGEST_ANSWER = 2**28  # bytes

# What a server means by a status for the calls that follow. Of the rest, below 500 all are hopeless, such as 401, 403, 404.
REFUSED = (400, 413, 414, 415, 422, 451)
OUTAGES = (408, 409, 425, 429)

# Models that reason take no temperature, and call the limit otherwise. What a refusal names is sent under the other name, or
# not at all, in one more try.
SUBSTITUTES = {"max_tokens": "max_completion_tokens", "temperature": None, "seed": None, "n": None}
_NOT_TAKEN = re.compile(r"support|permit|allowed|unknown|unrecogni|unexpected|only the default|instead", re.IGNORECASE)
_TITLE = re.compile(r"<title>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?\w+>")


class EndpointError(Exception):
    """A call that failed for good, in one line that never holds the key.

    Args:
        message (`str`): What was asked of which server, and what came of it.
        kind ([`~records.Failure`]): What that means for the next call: `REFUSED` for this content only, `OUTAGE` for as
            long as the server is down or busy, `HOPELESS` for all calls.
        status (`int`, *optional*): The HTTP status; `None` if no (usable) answer came.
        parameter (`str`, *optional*): The field of the request that the server does not take, if it names one.
    """

    def __init__(
        self,
        message: str,
        kind: Failure = Failure.OUTAGE,
        status: int | None = None,
        parameter: str | None = None,
    ):
        super().__init__(message)
        self.kind, self.status, self.parameter = kind, status, parameter


class _Unusable(Exception):
    """An answer of status 200 that is none."""


@dataclass(frozen=True)
class ChatCompletion:
    """What a model said.

    Args:
        text (`str`): Its message; empty if it has none, as when all tokens went into hidden reasoning.
        model (`str`): The name under which the server answered, often more exact than the one that was asked for.
        reasoning (`str`): What the server hands over apart from the message, as `reasoning_content` or `reasoning`.
        finish_reason (`str`): Why it ended: `"stop"`, `"length"` (cut), `"content_filter"`; empty if not said.
        refusal (`str`): The model's words where it refuses to answer; empty otherwise.
        usage (`dict`): What the server counted, such as `prompt_tokens`; empty if it does not count.
        failed_calls (`int`): How many tries failed before this answer came.
    """

    text: str
    model: str = ""
    reasoning: str = ""
    finish_reason: str = ""
    refusal: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    failed_calls: int = 0

    def with_reasoning(self) -> str:
        """The text with its reasoning in one pair of `<think>` tags, whatever the server has done to it.

        A server may hand the reasoning over apart, or leave a lone `</think>` since the opening tag was in the prompt.
        Other tags inside of reasoning that was not marked are taken out: there they are no part of the answer.

        Example:
            >>> ChatCompletion("red it is</think>red").with_reasoning()
            '<think>red it is</think>red'
            >>> ChatCompletion("red", reasoning="red it is").with_reasoning()
            '<think>red it is</think>red'
        """
        before, closing, after = self.text.partition("</think>")
        if "<think>" in before:
            return self.text
        reasoning, rest = (before, after) if closing else (self.reasoning, self.text)
        return f"<think>{_TAG.sub(' ', reasoning).strip()}</think>{rest}" if reasoning.strip() else rest


class Endpoint:
    """A model behind an OpenAI-compatible address. It may be used from several threads at once.

    Status 408, 409, 429 and 5xx, broken connections, timeouts, and answers of status 200 that cannot be used (cut, empty, a
    page of HTML) are tried again, after a wait that doubles each time up to 8 seconds, or is what the server's `Retry-After`
    asks for. A redirect is followed within the address's own scheme, host and port (or from http to https there). Any other
    fault is an error at once.

    Args:
        base_url (`str`): What comes before `/chat/completions`, such as `"http://localhost:8000/v1"`. For Azure with its
            version: `"https://NAME.openai.azure.com/openai/deployments/MODEL?api-version=2024-10-21"`.
        model (`str`): The model's name there.
        api_key_env (`str`, *optional*, defaults to `"OPENAI_API_KEY"`): The environment variable with the key. None is sent
            if it is not set, or if this is `None`: local servers need none.
        concurrency (`int`, defaults to 8): How many calls of `chat_many` run at once: 1 or more.
        max_retries (`int`, defaults to 5): How often a request is tried again: 0 or more.
        timeout (`float`, defaults to 120): Seconds without any answer after which a try counts as failed, and seconds that
            an answer may take from its first byte to its last.

    Raises:
        ModuleNotFoundError: Without the package `openai`, of the extra `remote`.
        ValueError: If `base_url` is no HTTP address or holds a key, or a number is out of range.

    Example:
        >>> judge = Endpoint("http://localhost:8000/v1", "Qwen/Qwen2.5-VL-7B-Instruct")  # doctest: +SKIP
        >>> judge.chat([{"role": "user", "content": "Hello"}], temperature=0)[0].text  # doctest: +SKIP
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str | None = KEY,
        concurrency: int = 8,
        max_retries: int = 5,
        timeout: float = 120,
    ):
        if find_spec("openai") is None:
            raise ModuleNotFoundError(f"Asking a server needs openai: {install_line('remote')}")
        if concurrency < 1 or timeout <= 0 or max_retries < 0:
            raise ValueError(
                "`concurrency` is 1 or more, `timeout` above 0 and `max_retries` 0 or more; "
                f"got {concurrency}, {timeout} and {max_retries}."
            )
        check_address(base_url)
        self.base_url, self.model, self.api_key_env = base_url.rstrip("/"), model, api_key_env
        self.concurrency, self.max_retries, self.timeout = concurrency, max_retries, timeout
        self._adapted: dict[str, str | None] = {}  # those of `SUBSTITUTES` that this server is known to want

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        n: int = 1,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        structured: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> list[ChatCompletion]:
        """The model's answers to a conversation.

        Args:
            messages (sequence of `dict`): `{"role": ..., "content": ...}`, the content a string or a list of parts.
                A part `{"type": "image", "image": picture}` is sent as a PNG in a data URL; the picture is a PIL one,
                upright as [`load_picture`] returns it. Other parts are sent as they are.
            n (`int`, defaults to 1): How many answers. A server that gives fewer is asked again for the rest.
            max_tokens (`int`, *optional*): Of an answer; the server's own limit by default.
            temperature (`float`, *optional*): 0 is greedy; the server's own by default.
            seed (`int`, *optional*): Of the sampling.
            structured (`Mapping`, *optional*): What makes this server keep to a format, merged into the request:
                `{"response_format": {...}}`, or vLLM's `{"structured_outputs": {"grammar": ...}}`.
            fields: Further fields of the request, such as `top_p=0.9`.

        Returns:
            `list` of [`ChatCompletion`]: `n` of them.

        Raises:
            EndpointError: If there is no answer after all tries, the server refuses, or what it sends is no answer.
            TypeError: If a picture is no PIL picture.
        """
        settings = {"max_tokens": max_tokens, "temperature": temperature, **(structured or {}), **fields}
        settings = {name: value for name, value in settings.items() if value is not None}
        sent: list[Any] = [sendable(message) for message in messages]

        def send(taken: Mapping[str, Any], client: OpenAI) -> AbstractContextManager[APIResponse]:
            create = client.chat.completions.with_streaming_response.create
            return create(messages=sent, model=self.model, extra_body=taken, extra_headers=self._headers)

        completions: list[ChatCompletion] = []
        while (missing := n - len(completions)) > 0:
            if missing > 1:
                settings["n"] = missing
            else:
                settings.pop("n", None)
            if seed is not None:
                settings["seed"] = seed + len(completions)
            completions += self._request("chat/completions", send, self._completions, settings)
        return completions[:n]

    def chat_many(
        self, conversations: Sequence[Sequence[Mapping[str, Any]]], **settings: Any
    ) -> list[list[ChatCompletion] | EndpointError]:
        """The answers to many conversations, `concurrency` of them at once, in their order.

        Args:
            conversations (sequence): Each as in `chat`.
            settings: As in `chat`, for all of them.

        Returns:
            `list`: for each conversation the answers, or why there are none: one that fails takes no other along.
        """
        return ask_in_order(lambda messages: self.chat(messages, **settings), conversations, self.concurrency)

    def models(self) -> list[str]:
        """The names of the models that the server has.

        Raises:
            EndpointError: If it does not say.
        """

        def send(_: Mapping[str, Any], client: OpenAI) -> AbstractContextManager[APIResponse]:
            return client.models.with_streaming_response.list(extra_headers=self._headers)

        def read(reply: Any, _: int) -> list[str]:
            try:
                return [str(model["id"]) for model in reply["data"]]
            except (KeyError, TypeError):
                raise _Unusable(_excerpt(reply)) from None

        return self._request("models", send, read, {})

    def take_only_model(self) -> None:
        """Goes on with the one model that the server has.

        Raises:
            ValueError: If it has several, or none.
            EndpointError: If it does not say.
        """
        names = self.models()
        if len(names) != 1:
            raise ValueError(f"Name the model: {self.base_url} has {', '.join(names) or 'none'}.")
        self.model = names[0]

    def edit_images(
        self, images: Sequence[Image.Image], prompt: str, mask: Image.Image | None = None, **fields: Any
    ) -> Image.Image:
        """The picture that an editor makes of pictures and a request, by `images/edits`.

        Args:
            images (sequence of `PIL.Image.Image`): The one to edit, then references; upright, see [`load_picture`].
            prompt (`str`): What to change.
            mask (`PIL.Image.Image`, *optional*): Of the first picture's size; transparent where it may change.
            fields: Further fields of the request, such as `size="1024x1024"` or `seed=0`; lists and objects are sent as
                JSON, those that are `None` are left out.

        Returns:
            `PIL.Image.Image`: RGB, of the size that the server chose.

        Raises:
            EndpointError: If there is no picture after all tries, the server refuses, or what it sends is none.
            TypeError: If one of the pictures is no PIL picture.
        """
        files = [(f"image{number}.png", to_png(image), "image/png") for number, image in enumerate(images)]
        content: dict[str, Any] = {"image": files[0] if len(files) == 1 else files, "prompt": prompt}
        if mask is not None:
            content["mask"] = ("mask.png", to_png(mask), "image/png")

        def send(taken: Mapping[str, Any], client: OpenAI) -> AbstractContextManager[APIResponse]:
            edit = client.images.with_streaming_response.edit
            # The client would make several fields of a list or an object.
            sent = {name: json.dumps(it) if isinstance(it, (dict, list)) else it for name, it in taken.items()}
            return edit(**content, model=self.model, extra_body=sent, extra_headers=self._headers)

        settings = {name: value for name, value in fields.items() if value is not None}
        return self._request("images/edits", send, _picture, settings)

    def close(self) -> None:
        """Closes the connections. Calls that are under way in other threads fail."""
        self._client.close()

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r}, {self.model!r})"

    def __getstate__(self) -> dict[str, Any]:
        # The client has sockets and the key: neither is for another process, or for a file.
        return {name: value for name, value in vars(self).items() if name != "_client"}

    @property
    def _key(self) -> str:
        key = os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""
        if not (key.isascii() and key.isprintable()):
            raise EndpointError(
                f"The key in {self.api_key_env} has letters that no request can hold.", Failure.HOPELESS
            )
        return key

    @property
    def _headers(self) -> dict[str, Any]:
        from openai import Omit

        if not self._key:
            return {"Authorization": Omit()}
        return {"api-key": self._key} if "api-version=" in self.base_url else {}  # where Azure looks for it

    @cached_property
    def _client(self) -> OpenAI:
        from openai import DefaultHttpxClient, OpenAI, Timeout  # half a second

        timeout = Timeout(self.timeout, connect=min(self.timeout, LONGEST_CONNECT))
        address = urlsplit(self.base_url)
        hooks = [partial(_stay_at, self.base_url), partial(_tell_of_tries, self.base_url, self.max_retries)]
        client = OpenAI(
            api_key=self._key or "none",
            base_url=urlunsplit(address._replace(query="")),
            default_query=dict(parse_qsl(address.query)),
            max_retries=self.max_retries,
            timeout=timeout,
            http_client=DefaultHttpxClient(timeout=timeout, event_hooks={"request": hooks}),
        )
        # A component is never told that it is not needed any more.
        weakref.finalize(self, client.close).atexit = False
        return client

    def _request(
        self,
        route: str,
        send: Callable[[Mapping[str, Any], OpenAI], AbstractContextManager[APIResponse]],
        read: Callable[[Any, int], Result],
        settings: Mapping[str, Any],
    ) -> Result:
        """What `read` makes of the answer, asked with those of the settings that the server takes."""
        settings, adapted = plain(settings), dict(self._adapted)
        while True:
            taken = {told: value for name, value in settings.items() if (told := adapted.get(name, name))}
            try:
                result = self._answer(route, partial(send, taken), read)
            except EndpointError as error:
                name = error.parameter
                if name not in SUBSTITUTES or name not in settings or name in adapted:
                    raise
                adapted[name] = SUBSTITUTES[name]
            else:
                for name in adapted.keys() - self._adapted.keys():
                    logger.warning("%s takes no %s: it is asked with %s.", self.model, name, adapted[name] or "none")
                self._adapted = {**self._adapted, **adapted}  # of other threads, too
                return result

    def _answer(
        self,
        route: str,
        send: Callable[[OpenAI], AbstractContextManager[APIResponse]],
        read: Callable[[Any, int], Result],
    ) -> Result:
        """What `read` makes of the answer. The tries that `openai` makes and those made here are counted together."""
        import httpx2
        from openai import APIConnectionError, APIStatusError

        failed = 0
        while True:
            # No error is raised inside of an `except`: with the first one as its context, a traceback would print what
            # the server says, in which some repeat the key.
            try:
                with send(self._client.with_options(max_retries=self.max_retries - failed)) as response:
                    failed += response.retries_taken
                    return read(self._json(response), failed)
            except APIStatusError as error:
                final = self._refusal(route, error, failed)
            except APIConnectionError as error:
                fault, final = f"{type(error.__cause__).__name__}: {error.__cause__}", None
                failed = self.max_retries
            except (httpx2.HTTPError, _Unusable) as error:
                fault, final = f"the server's answer cannot be used: {error or type(error).__name__}", None
            if final is not None:
                raise final
            if failed >= self.max_retries:
                raise self._error(route, f"{fault} (after {_tries(failed + 1)})")
            _say_that_it_failed(self.base_url, self.max_retries)
            sleep(min(FIRST_WAIT * 2**failed, LONGEST_WAIT) * random.uniform(0.75, 1))
            failed += 1

    def _json(self, response: APIResponse) -> Any:
        """The answer, bounded in time and size."""
        until, content = monotonic() + self.timeout, bytearray()
        for block in response.iter_bytes():
            content += block
            if monotonic() > until:
                raise _Unusable(f"it did not end within {self.timeout:g} seconds")
            if len(content) > LARGEST_ANSWER:
                raise _Unusable(f"it is longer than {LARGEST_ANSWER} bytes")
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise _Unusable(_excerpt(content.decode(errors="replace"))) from None

    def _completions(self, reply: Any, failed_calls: int) -> list[ChatCompletion]:
        try:
            model, usage = reply.get("model") or self.model, reply.get("usage") or {}
            completions = [
                ChatCompletion(**_said(choice), model=model, usage=usage, failed_calls=failed_calls)
                for choice in reply["choices"]
            ]
        except (AttributeError, IndexError, KeyError, TypeError):
            raise _Unusable(_excerpt(reply)) from None
        if not completions:
            raise _Unusable(_excerpt(reply))
        return completions

    def _refusal(self, route: str, error: APIStatusError, failed: int) -> EndpointError:
        status = error.status_code
        kind = Failure.REFUSED if status in REFUSED else Failure.HOPELESS
        if status in OUTAGES or status >= 500:
            kind = Failure.OUTAGE
        said = _message(error.body)
        fault = f"{status} {error.response.reason_phrase}: {said}"
        if status in (401, 403):
            has = f"The key is read from {self.api_key_env}" if self._key else f"No key is set in {self.api_key_env}"
            fault += f" {has}." if self.api_key_env else " No key is sent to it."
        if status == 404:
            fault += " Check the address (it often ends in /v1) and the model's name."
        if kind is Failure.OUTAGE:
            failed += int(error.request.headers.get("x-stainless-retry-count", 0))
            wait = error.response.headers.get("retry-after")
            fault += f" (after {_tries(failed + 1)}" + (f"; the server asks to wait for {wait})" if wait else ")")
        return self._error(route, fault, kind, status, _parameter(error.param, said) if status in (400, 422) else None)

    def _error(self, route: str, fault: str, kind: Failure = Failure.OUTAGE, *details: Any) -> EndpointError:
        model = f", model {self.model!r}" if self.model else ""
        text = " ".join(f"{self.base_url}/{route}{model}: {fault}".split())
        return EndpointError(text.replace(self._key, "***") if self._key else text, kind, *details)


def check_address(base_url: str) -> None:
    """Refuses what is no HTTP address, and one with a key in it, which would get into files and logs.

    Raises:
        ValueError
    """
    try:
        scheme, host, _ = _origin(base_url)
    except ValueError:  # its port is none
        scheme = host = ""
    if scheme not in ("http", "https") or not host or " " in host:
        raise ValueError(
            f"`base_url` begins with http:// or https:// and names a host, and a port at most; got {base_url!r}."
        )
    parts = urlsplit(base_url)
    others = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} - {"api-version"}
    if parts.username or parts.password or parts.fragment or others:
        raise ValueError(
            f"`base_url` holds no names, keys or other parameters than api-version; {parts.hostname} has them. "
            f"A key is read from the environment, {KEY}."
        )


def key_env_for(base_url: str) -> str | None:
    """The environment variable whose key may go to an address that was read from a file, or `None`.

    The key goes to this machine, and to the address that it belongs to: `OPENAI_BASE_URL`, or else OpenAI's own. Whoever
    wrote the file could otherwise have it sent to himself.
    """
    at_home = _origin(base_url) == _origin(os.environ.get(KEY_HOME) or "https://api.openai.com/v1")
    here = urlsplit(base_url).hostname in ("localhost", "127.0.0.1", "::1")
    return KEY if at_home or here else None


class RemoteModel:
    """What a planner and an editor behind an address have in common: address and model, which a folder can hold.

    Args:
        base_url (`str`): Of the server, up to `/v1`, see [`Endpoint`].
        model (`str`, *optional*): The model's name there; may be left out where the server has only one.
        api_key_env (`str`, *optional*, defaults to `"OPENAI_API_KEY"`): The environment variable with the key; it is never
            saved.
        concurrency (`int`, defaults to 8): How many requests are under way at once.
        max_retries (`int`, defaults to 10): How often a request is tried again.
        timeout (`float`, defaults to 600): Seconds without an answer after which a try counts as failed.

    Raises:
        ModuleNotFoundError: Without the package `openai`, of the extra `remote`.
        ValueError: If `base_url` is no HTTP address or holds a key, or a number is out of range; if no model is named and
            the server has several.
        EndpointError: If no model is named and the server does not say which it has.
    """

    config_name: ClassVar[str]

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        api_key_env: str | None = KEY,
        concurrency: int = 8,
        max_retries: int = 10,
        timeout: float = 600,
    ):
        self.endpoint = Endpoint(base_url, model or "", api_key_env, concurrency, max_retries, timeout)
        if model is None:
            self.endpoint.take_only_model()

    @property
    def base_url(self) -> str:
        return self.endpoint.base_url

    @property
    def model(self) -> str:
        return self.endpoint.model

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> None:
        """Writes address and model to the file `config_name` in a folder, which is made if not there; never a key."""
        path = Path(save_directory) / self.config_name
        path.parent.mkdir(parents=True, exist_ok=True)
        config = {"_class_name": type(self).__name__, "base_url": self.base_url, "model": self.model}
        write_whole(path, json.dumps(config, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls: type[Remote], folder: str | Path, **settings: Any) -> Remote:
        """The planner or editor that `save_pretrained` wrote to a folder.

        The key in `OPENAI_API_KEY` goes to this machine and to the address in `OPENAI_BASE_URL`, or else OpenAI's own, and
        to no other one that a file names: give `api_key_env` for that.

        Args:
            folder (`str` or `Path`): With the file `config_name`.
            settings: As in the constructor.

        Raises:
            OSError: If there is no such file.
            ValueError: If it does not hold an address and a model.
        """
        path = Path(folder) / cls.config_name
        try:
            config = schema.read_fields({"base_url": str, "model": str}, schema.read_file(path), str(path))
            base_url, model = config["base_url"], config["model"]
            check_address(base_url)
        except ValueError as error:
            raise ValueError(f"{path} names no model by `base_url` and `model`: {error}.") from None
        return cls(**{"base_url": base_url, "model": model, "api_key_env": key_env_for(base_url), **settings})

    def close(self) -> None:
        """Closes the connections. Calls that are under way in other threads fail."""
        self.endpoint.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r}, {self.model!r})"


# Many at once
# ------------


def map_concurrently(
    function: Callable[[Item], Result], items: Iterable[Item], limit: int
) -> Iterator[tuple[Item, Result | Exception]]:
    """Calls a function for every item, several at once in threads, and yields each result as soon as it is there.

    Where the loop over it ends early, as by Ctrl-C, no further call begins and those under way are abandoned: the program
    can end without waiting for them.

    Args:
        function (`Callable`): Takes an item; what it raises is handed over as the result, and the others go on.
        items (`Iterable`): Read as far as it is worked on, so that it may be endless.
        limit (`int`): How many calls run at once: 1 or more. One at a time is done without a thread.

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
    if limit == 1:
        return ((item, _outcome(function, item)) for item in items)
    return _map_in_threads(function, iter(items), limit)


def map_in_order(function: Callable[[Item], Result], items: Sequence[Item], limit: int) -> list[Result | Exception]:
    """As `map_concurrently`, with all results, or exceptions, in the order of their items."""
    results = dict(map_concurrently(lambda index: function(items[index]), range(len(items)), limit))
    return [results[index] for index in range(len(items))]


def ask_in_order(
    function: Callable[[Item], Result], items: Sequence[Item], limit: int
) -> list[Result | EndpointError]:
    """As `map_in_order`, for requests: an exception that is no [`EndpointError`] is raised."""
    results: list[Result | EndpointError] = []
    for result in map_in_order(function, items, limit):
        if isinstance(result, Exception) and not isinstance(result, EndpointError):
            raise result
        results.append(result)
    return results


def all_or_raise(results: Iterable[Result | EndpointError]) -> list[Result]:
    """The results where all are needed.

    Raises:
        EndpointError: The first among them.
    """
    found: list[Result] = []
    for result in results:
        if isinstance(result, EndpointError):
            raise result
        found.append(result)
    return found


def _map_in_threads(function: Callable, items: Iterator, limit: int) -> Iterator[tuple[Any, Any]]:
    # Not by a `ThreadPoolExecutor`, whose threads a program waits for before it ends.
    waiting: SimpleQueue = SimpleQueue()
    finished: SimpleQueue = SimpleQueue()

    def work() -> None:
        while (task := waiting.get()) is not None:
            finished.put((task[0], _outcome(function, task[0])))

    threads, under_way = 0, 0
    try:
        for item in islice(items, limit):
            waiting.put((item,))
            Thread(target=work, daemon=True).start()
            threads, under_way = threads + 1, under_way + 1
        while under_way:
            result = finished.get()
            under_way -= 1
            for item in islice(items, 1):
                waiting.put((item,))
                under_way += 1
            yield result
    finally:
        for _ in range(threads):
            waiting.put(None)


def _outcome(function: Callable[[Item], Result], item: Item) -> Result | Exception:
    try:
        return function(item)
    except Exception as error:
        return error


# Into messages and out of answers
# --------------------------------


def plain(value: Any) -> Any:
    """The value with numbers of numpy in it as those of Python: JSON has no others."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def check_field(name: str, value: Any) -> None:
    """Refuse what no request can hold in one of its fields.

    Raises:
        TypeError: If it is no JSON.
        ValueError: If a number is not finite, a text holds half of a surrogate pair, or a key is no text.
    """
    value = plain(value)
    try:
        json.dumps(value)
    except TypeError:
        raise TypeError(f"`{name}` cannot be sent to a server: it is a {type(value).__name__}.") from None
    schema.read(Any, value, f"`{name}`")


def sendable(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message with its PIL pictures as data URLs, as OpenAI-compatible models take it."""
    content = message.get("content")
    if isinstance(content, (list, tuple)):
        content = [_sendable_part(part) for part in content]
    return {**message, "content": content}


def _sendable_part(part: Any) -> Any:
    if not isinstance(part, Mapping) or part.get("type") != "image":
        return part
    data = base64.b64encode(to_png(to_send(part["image"]))).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def _said(choice: Mapping[str, Any]) -> dict[str, str]:
    """Text, reasoning, finish reason and refusal of a choice; raises if it is no answer."""
    message, finish = choice["message"], str(choice.get("finish_reason") or "")
    if message.get("role", "assistant") != "assistant":
        raise TypeError(message["role"])
    content = message.get("content") or ""
    if not isinstance(content, str):
        content = "".join(part.get("text", "") for part in content)
    reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
    refusal = message.get("refusal") or ""
    if not (content.strip() or reasoning or refusal or finish in ("length", "content_filter")):
        raise KeyError("content")
    return {"text": content, "reasoning": str(reasoning), "finish_reason": finish, "refusal": str(refusal)}


def _picture(reply: Any, failed_calls: int) -> Image.Image:
    try:
        result = reply["data"][0]
        encoded, address = result.get("b64_json"), result.get("url") or ""
        if address.startswith("data:"):
            encoded = address.partition(",")[2]
        if encoded:
            # Only these formats: with some others, Pillow starts programs.
            return load_picture(Image.open(io.BytesIO(base64.b64decode(encoded)), formats=FORMATS))
        if not address.startswith(("http://", "https://")):
            raise ValueError("no picture")
        return load_picture(address)  # without the client, whose key is nobody else's business
    except (AttributeError, IndexError, KeyError, OSError, SyntaxError, TypeError, ValueError) as error:
        raise _Unusable(f"{error}: {_excerpt(reply)}") from None


def _parameter(named: Any, said: str) -> str | None:
    """The field that a server does not take: as it names it apart, or in its words."""
    if named:
        return str(named)
    if _NOT_TAKEN.search(said):
        return next((name for name in SUBSTITUTES if re.search(rf"\b{name}\b", said)), None)
    return None


def _message(body: Any) -> str:
    """What the server says is wrong, in a line; of a page of HTML its title."""
    if isinstance(body, Mapping):
        body = body.get("message") or body.get("detail") or body
    if isinstance(body, str) and (title := _TITLE.search(body)):
        body = title[1]
    return _excerpt(body) if body else "no message."


def _excerpt(said: Any) -> str:
    return " ".join(str(said).split())[:300] or "it is empty"


def _tries(number: int) -> str:
    return f"{number} {'try' if number == 1 else 'tries'}"


def _stay_at(base_url: str, request: httpx2.Request) -> None:
    """Refuse a redirect to somebody else, who would get the pictures, and from some servers' headers the key."""
    import httpx2

    home, there = _origin(str(httpx2.URL(base_url))), _origin(str(request.url))  # each as a request writes it
    if there not in (home, ("https", home[1], 443)):
        raise EndpointError(f"{base_url} redirects to {there[0]}://{there[1]}:{there[2]}.", Failure.HOPELESS)


def _tell_of_tries(base_url: str, tries: int, request: httpx2.Request) -> None:
    if request.headers.get("x-stainless-retry-count", "0") != "0":
        _say_that_it_failed(base_url, tries)


@cache  # so that it is said once
def _say_that_it_failed(base_url: str, tries: int) -> None:
    """All tries take a minute, in which nothing else is heard."""
    logger.warning("%s fails, or is busy: it is asked again, up to %d times.", base_url, tries)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
