"""The addresses of the server: `/v1/models`, `/v1/plans` and `/v1/images/edits`.

Requests wait here for one of a few threads. What must not happen to one editor or planner at the same time is not decided
here but by the pipeline, which has the locks.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import io
import logging
import threading
import time
from collections.abc import Callable
from traceback import extract_tb
from typing import Any, TypeVar

from PIL import Image
from python_multipart.multipart import parse_options_header
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..endpoints import EndpointError
from ..images import MAX_UPLOAD_PIXELS, to_png
from ..pipelines.remote import RemotePipeline, seed_for
from ..records import Failure
from ..remote_editor import MASK
from .form import (
    FORMATS,
    MAX_BYTES,
    MAX_PICTURES,
    MAX_STEPS,
    EditRequest,
    Refused,
    about,
    check_work,
    fitted,
    read_argument,
    read_edit,
    read_plan_request,
)


Result = TypeVar("Result")

logger = logging.getLogger(__name__)

AT_ONCE = (
    8  # requests under way: pictures are opened, planned and edited side by side as far as the pipeline lets them
)
MAX_WAITING = 64  # requests beside these; more are asked to come again
QUALITY = 95


class Service:
    """Answers requests over a pipeline.

    Args:
        pipe ([`ImageEditR1Pipeline`] or [`RemotePipeline`]): Used from several threads.
        name (`str`): What the one model is called to clients.
        key (`str`, *optional*): Let in only those who send it as a bearer token.
        max_pixels (`int`, defaults to 2**25): The largest width x height of a picture.
        max_waiting (`int`, defaults to 64): How many requests may wait.
        max_steps (`int`, defaults to 100): The most steps of denoising that a client may ask for.
    """

    def __init__(
        self,
        pipe: Any,
        name: str,
        key: str | None = None,
        max_pixels: int = MAX_UPLOAD_PIXELS,
        max_waiting: int = MAX_WAITING,
        max_steps: int = MAX_STEPS,
    ):
        self.pipe, self.name, self.key = pipe, name, key
        self.max_pixels, self.max_waiting, self.max_steps = max_pixels, max_waiting, max_steps
        self._here = 0
        self._threads = asyncio.Semaphore(AT_ONCE)

    def app(self) -> Starlette:
        """The service as an ASGI application."""
        routes = [
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/v1/plans", self.plans, methods=["POST"]),
            Route("/v1/images/edits", self.edits, methods=["POST"]),
        ]
        return Starlette(
            routes=routes,
            exception_handlers={Refused: _refusal, HTTPException: _http_error, Exception: _fault},
        )

    async def models(self, request: Request) -> Response:
        self._let_in(request)
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        self._let_in(request)
        self._check_model(request.path_params["name"])
        return JSONResponse(self._model())

    async def plans(self, request: Request) -> Response:
        """What an instruction about a picture becomes: the plan as `EditPlan.to_dict` writes it."""
        self._let_in(request)
        async with _Form(request) as form:
            self._check_model(form.get("model"))

            def work() -> dict[str, Any]:
                images, prompt = read_plan_request(form, self.max_pixels)
                return self._asked(lambda: self.pipe.check_planning([images], prompt), self.pipe.plan_checked)[
                    0
                ].to_dict()

            return JSONResponse({"object": "plan", **await self._in_thread(work)})

    async def edits(self, request: Request) -> Response:
        """The edited pictures, with the plan that was carried out."""
        self._let_in(request)
        async with _Form(request) as form:
            self._check_model(form.get("model"))

            def work() -> dict[str, Any]:
                asked = read_edit(form, self.max_pixels)
                out = self._asked(lambda: self._checked(asked), lambda call: self._made(call, asked))
                if out.interrupted:
                    raise Refused("The server is ending.", 503)
                pictures = [_encoded(image, asked) for image in out.images]
                return {"data": [{"b64_json": picture} for picture in pictures], "plan": out.plans[0].to_dict()}

            answer = await self._in_thread(work)
        return JSONResponse({"created": int(time.time()), **answer})

    def _checked(self, asked: EditRequest) -> Any:
        """What `check_inputs` makes of the request, if it is no more work than a server takes."""
        call = self.pipe.check_inputs(**self._call(asked))
        for share in [call.arguments] if isinstance(self.pipe, RemotePipeline) else call.each[0]:
            of_client = {name: value for name, value in share.items() if name in asked.arguments}
            check_work(of_client, asked.images[0].size, self.max_pixels, self.max_steps)
        return call

    def _made(self, call: Any, asked: EditRequest) -> Any:
        """The pictures; what the editor's class refuses of a client's arguments, which only it can know, is the client's."""
        try:
            return self.pipe.run_checked(call)
        except ValueError as error:
            if asked.arguments and extract_tb(error.__traceback__)[-1].name in _CHECKS_OF_EDITORS:
                raise Refused(str(error)) from error
            raise

    def _call(self, asked: EditRequest) -> dict[str, Any]:
        """The arguments of the pipeline's call."""
        call: dict[str, Any] = {"image": [asked.images], "turns": asked.turns, "num_images_per_prompt": asked.n}
        call |= {"instruction": asked.prompt} if asked.plan is None else {"plan": asked.plan}
        if asked.mask is not None:
            call[self._mask_name()] = asked.mask
        call |= seed_for(self.pipe, asked.seed)
        self._check_fields(asked)
        # A list of one value is that value for all results, whether it is a picture or several.
        pictures = {name: files if len(files) == 1 else [files] for name, files in asked.pictures.items()}
        return {**call, **self._arguments(asked), **pictures}

    def _arguments(self, asked: EditRequest) -> dict[str, Any]:
        """The editor's arguments as it takes them; of a server behind this one, only that one knows."""
        if isinstance(self.pipe, RemotePipeline):
            return asked.arguments
        from ..editors.signatures import hints_of, plain_of

        hints = hints_of(self.pipe.editor)
        # What the editor does not take at all, the pipeline refuses.
        return {
            name: read_argument(name, value, plain_of(hints[name])) if name in hints else value
            for name, value in asked.arguments.items()
        }

    def _check_fields(self, asked: EditRequest) -> None:
        """Let pictures in as files only, and text as words only: any other text may be a path or an address."""
        pictures = self._picture_fields()
        for name in (*asked.arguments, *asked.pictures):
            if name in _NOT_FOR_CLIENTS:
                raise Refused(f"`{name}` is no field of a request.", param=name)
        for name in asked.pictures:
            if name not in pictures:
                raise Refused(f"`{name}` is no picture of this editor's.", param=name)
        for name, value in asked.arguments.items():
            if name in pictures:
                raise Refused(f"`{name}` is sent as a file.", param=name)
            if "prompt" not in name and _has_text(value):
                raise Refused(f"`{name}` takes no text, only what JSON has besides, such as 4.5 or true.", param=name)

    def _picture_fields(self) -> set[str]:
        """Which of the editor's arguments are pictures; to a server behind this one none are sent beside `image` and `mask`."""
        if isinstance(self.pipe, RemotePipeline):
            return set()
        from ..editors.signatures import hints_of, is_picture

        return {name for name, hint in hints_of(self.pipe.editor).items() if is_picture(hint)}

    def _mask_name(self) -> str:
        """What the editor calls its mask."""
        if isinstance(self.pipe, RemotePipeline):
            return MASK
        from ..editors import traits_of

        name = traits_of(self.pipe.editor).mask
        if not name:
            raise Refused("This editor takes no mask.", param="mask")
        return name

    def _asked(self, check: Callable[[], Any], run: Callable[[Any], Result]) -> Result:
        """What does not fit is the client's fault; what fails after that is not."""
        try:
            call = check()
        except (TypeError, ValueError, OverflowError) as error:  # the last of a whole number that no float holds
            raise Refused(str(error)) from error
        try:
            return run(call)
        except EndpointError as error:  # of a server behind this one, which may refuse a content
            raise Refused(str(error), 400 if error.kind is Failure.REFUSED else 502) from error

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        """The result of `work`, when it is its turn. The threads are daemons: nobody waits for them to end a program."""
        if self._here >= AT_ONCE + self.max_waiting:
            raise Refused(f"{self._here} requests wait already; come again later.", 429, code="rate_limit_exceeded")
        self._here += 1
        try:
            async with self._threads:
                loop = asyncio.get_running_loop()
                future: asyncio.Future[Result] = loop.create_future()

                def run() -> None:
                    try:
                        result, fault = work(), None
                    except BaseException as error:  # noqa: BLE001 (raised again where it is waited for)
                        result, fault = None, error
                    if not loop.is_closed():
                        loop.call_soon_threadsafe(_settle, future, result, fault)

                threading.Thread(target=run, daemon=True, name="request").start()
                return await future
        finally:
            self._here -= 1

    def _let_in(self, request: Request) -> None:
        if not self.key:
            return
        sent = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        # A header is read as Latin-1. Clients write letters other than ASCII in that, or in UTF-8.
        written = (self.key, self.key.encode().decode("latin-1"))
        if not any(hmac.compare_digest(sent, key.encode()) for key in written):
            raise Refused("The API key is missing or wrong.", 401, code="invalid_api_key")

    def _check_model(self, name: Any) -> None:
        if name not in (None, "", self.name):
            raise Refused(
                f"There is no model {str(name)[:100]!r} here, only {self.name!r}.", 404, "model", "model_not_found"
            )

    def _model(self) -> dict[str, Any]:
        return {"id": self.name, "object": "model", "created": 0, "owned_by": "diffusers-r1"}


# Arguments of the pipeline's call that are code, files of this machine, or bounded by fields of their own.
_NOT_FOR_CLIENTS = (
    *("image", "instruction", "plan", "generator", "seed", "selector", "num_images_per_prompt", "num_plans", "mask"),
    *(
        "num_images_per_plan",
        "output_type",
        "return_dict",
        "callback_on_plan",
        "max_batch",
        "max_new_tokens",
        "generation",
    ),
    *("max_pixels", "upscale", "mask_image", "callback_on_step_end", "reflect", "critic"),
)


# Functions in which classes of diffusers refuse what does not go together, such as few steps and a low `strength`.
_CHECKS_OF_EDITORS = ("check_inputs", "retrieve_timesteps", "__call__")


class _Form:
    """The form of a request, of at most `MAX_BYTES`; its files are closed at the end."""

    def __init__(self, request: Request):
        self.request = request
        self._received = 0
        self._receive = request._receive
        request._receive = self._counted

    async def _counted(self) -> Any:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        if self._received > MAX_BYTES:
            raise Refused(f"A request has at most {MAX_BYTES:,} bytes.", 413)
        return message

    async def __aenter__(self) -> Any:
        kind, options = parse_options_header(self.request.headers.get("content-type"))
        if kind != b"multipart/form-data":
            raise Refused("A request is a form of the type multipart/form-data, with the picture as a file.", 415)
        if options.get(b"charset", b"utf-8").lower() != b"utf-8":  # Python knows some that are no text
            raise Refused("The text of a form is in UTF-8.", 415)
        try:
            self.form = await self.request.form(max_files=MAX_PICTURES + 1, max_fields=64, max_part_size=2**20)
        except ClientDisconnect:
            raise Refused("The client has gone.") from None
        return self.form

    async def __aexit__(self, *_: Any) -> None:
        await self.form.close()


def _settle(future: asyncio.Future[Any], result: Any, fault: BaseException | None) -> None:
    if future.cancelled():
        return
    if fault is None:
        future.set_result(result)
    else:
        future.set_exception(fault)


def _encoded(image: Image.Image, asked: EditRequest) -> str:
    if asked.size is not None:
        image = image.resize(fitted(image.size, asked.size), Image.Resampling.LANCZOS)
    if asked.output_format == "png":
        return base64.b64encode(to_png(image)).decode()
    file = io.BytesIO()
    image.save(file, FORMATS[asked.output_format], quality=QUALITY)
    return base64.b64encode(file.getvalue()).decode()


def _has_text(value: Any) -> bool:
    """Whether there is text among the values, however deep; the names of an object are none."""
    if isinstance(value, dict):
        return any(map(_has_text, value.values()))
    return isinstance(value, str) or (isinstance(value, list) and any(map(_has_text, value)))


async def _refusal(request: Request, error: Any) -> Response:
    return JSONResponse(about(error), error.status, {"Retry-After": "1"} if error.status in (429, 503) else None)


async def _http_error(request: Request, error: Any) -> Response:
    return JSONResponse(about(Refused(str(error.detail), error.status_code)), error.status_code)


async def _fault(request: Request, error: Exception) -> Response:
    logger.error("A request failed.", exc_info=error)
    return JSONResponse(about(Refused("This did not work; the log of the server says why.", 500)), 500)
