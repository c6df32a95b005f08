"""What several verbs share: the options that choose and load a pipeline, and the errors that are the user's."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from ..belongings import belongings_in, not_made_for
from ..bundles import AGENTS
from ..bundles.planners import shared_in
from ..names import PIPELINE_INDEX, is_address, only_configs, resolve
from . import placing, quantizing
from .progress import set_log_level


if TYPE_CHECKING:
    import torch

    from ..judging import Critic
    from ..pipelines.pipeline_imageedit_r1 import ImageEditR1Pipeline
    from ..pipelines.remote import RemotePipeline

logger = logging.getLogger(__name__)

SCENES = "imageedit-r1-scenes"
NO_PLANNER = "none"


class UsageError(Exception):
    """What was asked for cannot be done, and asking otherwise helps."""


@contextmanager
def checking() -> Iterator[None]:
    """An error inside the block is the user's to mend."""
    try:
        yield
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def seed(text: str) -> int:
    """The type of `--seed`: what `torch.Generator.manual_seed` takes."""
    number = int(text)
    if not 0 <= number < 2**63:
        raise ValueError
    return number


def add_bundle_arguments(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,
    default: str | None = SCENES,
    dtypes: Sequence[str] = placing.DTYPES,
) -> None:
    """The options that choose a bundle, and where and how its models run."""
    parser.add_argument(
        "--model", default=default, help=f"a folder, a name on the Hub, or a shipped bundle (default: {SCENES})"
    )
    parser.add_argument(
        "--device", help="where the models run: cuda, cpu, ... (default: an accelerator if there is one)"
    )
    auto = "; auto: bfloat16 where the device computes in it" if placing.AUTO in dtypes else ""
    parser.add_argument("--dtype", choices=tuple(dtypes), help=f"of the weights (default: float32{auto})")


def add_model_arguments(parser: argparse.ArgumentParser, edits: bool = True, unplanned: bool = False) -> None:
    """The options that choose a bundle, or planner and editor apart.

    Args:
        edits (`bool`): Whether the verb takes an editor.
        unplanned (`bool`): Whether it edits without a planner, too.
    """
    models = parser.add_argument_group("models", "a saved bundle, or its parts")
    add_bundle_arguments(models, None, (*placing.DTYPES, placing.AUTO))
    placing.add_placing_arguments(models)
    quantizing.add_quantizing_argument(models)
    add_planner_arguments(models, f"; {NO_PLANNER}: the instruction goes to the editor as it is" if unplanned else "")
    if edits:
        models.add_argument(
            "--editor",
            metavar="NAME",
            help="an editor's name, folder or address (http://...), in place of the bundle's",
        )
        models.add_argument(
            "--editor_model", metavar="NAME", help="of an editor's address with several: the model there"
        )


def add_planner_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup, also: str = "") -> None:
    """The options that choose a planner, see `load_planner`; `also` is what else its name may be, for the help."""
    parser.add_argument(
        "--planner",
        metavar="NAME",
        help=f"a planner's name, folder or address (http://...), in place of the bundle's{also}",
    )
    parser.add_argument("--planner_model", metavar="NAME", help="of a planner's address with several: the model there")
    parser.add_argument(
        "--planner_base",
        metavar="NAME",
        help="of a planner that is an adapter: where its base model is, a folder or a name",
    )


def add_limits(parser: argparse.ArgumentParser, max_pixels: int, max_waiting: int) -> None:
    """The options that bound what is taken from others, with their defaults."""
    parser.add_argument(
        "--max_pixels",
        type=positive,
        default=max_pixels,
        metavar="N",
        help="refuse pictures of more pixels, width x height (default: %(default)s)",
    )
    parser.add_argument(
        "--max_waiting",
        type=positive,
        default=max_waiting,
        metavar="N",
        help="refuse a request when so many wait for their turn (default: %(default)s)",
    )


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def add_critic_arguments(parser: argparse._ActionsContainer) -> None:
    """Who looks again; see [`~judging.find_critic`]."""
    parser.add_argument(
        "--critic_url",
        metavar="URL",
        help="an OpenAI-compatible server with a model that sees (default: the exact critic, of scenes only)",
    )
    parser.add_argument(
        "--critic_model",
        metavar="NAME",
        help="of an address with several: the model there; without --critic_url, one to be loaded here",
    )


def named_critic(args: argparse.Namespace) -> Critic | None:
    """The critic of `add_critic_arguments`; `None` where none is named.

    Raises:
        ValueError, EndpointError: See [`~judging.find_critic`].
    """
    if args.critic_url is None and args.critic_model is None:
        return None
    from ..judging import find_critic

    device = placing.find_device(args.device)
    return find_critic(args.critic_model, args.critic_url, device, placing.find_dtype(args.dtype, device))


def find_looks(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of a call that is looked at again; none with `--reflect 0`. No model is loaded.

    Raises:
        UsageError: If there is no such critic, or it would not be asked.
    """
    from ..pipelines.checks import check_reflection

    with checking():
        if (args.critic_url or args.critic_model) and not args.reflect:  # before a server is asked, or a model loaded
            raise ValueError("--critic_url and --critic_model say who looks again: give --reflect, 1 or more.")
        critic = named_critic(args)
        if args.reflect and critic is None:
            from ..judging import ScenesCritic

            critic = ScenesCritic()
        check_reflection(args.reflect, critic)
    return {} if critic is None else {"reflect": args.reflect, "critic": critic}


def add_editor_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=editor_argument,
        metavar="NAME=VALUE",
        help="""an argument of the editor, the value as JSON: guidance_scale=2.5 or negative_prompt='"blurry"'""",
    )


def editor_argument(text: str) -> tuple[str, Any]:
    """`"guidance_scale=2.5"` as name and value."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        quoted = json.dumps(value, ensure_ascii=False)
        raise argparse.ArgumentTypeError(
            f"{value!r} is no JSON; if it is text, it stands in double quotes, and they in single ones: --set {name}='{quoted}'"
        ) from None


def load_pipeline(
    args: argparse.Namespace, planning: bool = True, editing: bool = True, sizes: Iterable[tuple[int, int]] = ()
) -> ImageEditR1Pipeline | RemotePipeline:
    """The pipeline that `add_model_arguments` asks for. Without torch, where all that it needs is behind addresses.

    Args:
        args (`argparse.Namespace`): Parsed.
        planning, editing (`bool`): What it is for; other parts are neither downloaded nor loaded.
        sizes (iterable of `tuple`): Width and height of the pictures: where models were made for others, that is said before
            they are loaded.

    Raises:
        UsageError: If there is no such device, pipeline or part.
    """
    planner, editor = (getattr(args, name, None) for name in ("planner", "editor"))
    with checking():
        check_parts(args, planning, editing)
    if args.model is None and all(is_address(n) for n, used in ((planner, planning), (editor, editing)) if used):
        from ..pipelines.remote import RemotePipeline

        if idle := next((name for name in ("offload", "quantize") if getattr(args, name)), None):
            raise UsageError(f"--{idle} is for models that are loaded here, and these are behind addresses")
        set_log_level(args)
        parts = {**_planner(args, planning, {}), **_editor(args, editing)}
        return RemotePipeline(parts.get("planner"), parts.get("editor"))

    from .. import ImageEditR1Pipeline

    set_log_level(args)
    with checking():
        device = placing.find_device(args.device)
        placing.check_placing(args, device)
        quantizing.check_quantizing(_quantize(args), device, editing and not is_address(editor))
    with naming():
        warning = _other_pictures(args, planning, editing, sizes)
    if warning:
        logger.warning(warning)
    dtype = placing.find_dtype(args.dtype, device)
    with naming():
        smaller = quantizing.of_planner(_quantize(args), dtype, device)
        parts = {**_planner(args, planning, {**_dtype(dtype), **smaller}), **_editor(args, editing, dtype)}
        # A planner that is a part of the bundle's editor does not come without it.
        if (
            not editing
            and "planner" not in parts
            and "planner" in shared_in(resolve(args.model or SCENES, only_configs))
        ):
            del parts["editor"]
        own = {"planner", "editor"} - set(parts)
        if own:
            name = args.model or SCENES
            smaller = quantizing.of_bundle(_quantize(args), name, dtype, device, own)
            pipe = ImageEditR1Pipeline.from_pretrained(name, **_dtype(dtype), **smaller, **parts)
        else:
            pipe = ImageEditR1Pipeline(**parts)
    quantizing.make_smaller(_quantize(args), pipe, device)
    pipe.warned.add(warning)
    return placing.place(pipe, args, device)


def _other_pictures(args: argparse.Namespace, planning: bool, editing: bool, sizes: Iterable[tuple[int, int]]) -> str:
    """What is to be said of the first picture that does not fit, read from the models' configs alone; empty where all do.

    Raises:
        OSError: If there is no such model.
        ValueError: If a file is not what it should be; the message names it.
    """
    folder_of = cache(partial(resolve, choose=only_configs))  # the Hub is asked about a bundle once, not for each part
    made_for = {}
    for name, used, index in (("planner", planning, "config.json"), ("editor", editing, PIPELINE_INDEX)):
        part = getattr(args, name, None)
        if not used or is_address(part):
            continue
        folder = folder_of(part or args.model or SCENES)
        nested = folder / name  # of a bundle
        made_for[name] = belongings_in((nested if nested.is_dir() else folder) / index).get("made_for")
    known = {name: pictures for name, pictures in made_for.items() if pictures}
    told = (not_made_for(name, known[name], [size]) for size in (sizes if known else ()) for name in known)
    return next(filter(None, told), "")


def with_turns(pipe: ImageEditR1Pipeline | RemotePipeline) -> ImageEditR1Pipeline:
    """A pipeline of the same parts that keeps turns, can be stopped and looks a second time; this one needs torch."""
    from ..pipelines.remote import RemotePipeline

    if not isinstance(pipe, RemotePipeline):
        return pipe
    from .. import ImageEditR1Pipeline

    parts: dict[str, Any] = {"planner": pipe.planner, "editor": pipe.editor}  # no planner where a plan is given
    return ImageEditR1Pipeline(**parts)


def check_parts(args: argparse.Namespace, planning: bool, editing: bool) -> None:
    """Refuse parts that make no whole.

    Raises:
        ValueError: If a part is named without the other one, or a model without an address.
    """
    planner, editor = (getattr(args, name, None) for name in ("planner", "editor"))
    for name, part in (("planner", planner), ("editor", editor)):
        if getattr(args, f"{name}_model", None) and not is_address(part):
            raise ValueError(f"--{name}_model goes with --{name} http://..., an address")
    if getattr(args, "planner_base", None) and (planner in (None, NO_PLANNER) or is_address(planner)):
        raise ValueError("--planner_base goes with --planner NAME, an adapter that is loaded here")
    if planner == NO_PLANNER and planning:
        raise ValueError(f"--planner {NO_PLANNER} is for `edit`, which then plans nothing")
    if args.model is None and planning and editing and (planner is None) != (editor is None):
        other = "editor" if editor is None else "planner"
        known = f"the --model whose {other} is to be taken"
        if planner is None and args.verb == "edit":
            known += f", or --planner {NO_PLANNER} to send the instruction as it is"
        raise ValueError(f"name the --{other} too, or {known}")


def _planner(args: argparse.Namespace, wanted: bool, settings: dict[str, Any]) -> dict[str, Any]:
    """The components that plan, as far as they are not the bundle's; `settings` are for one that is loaded here."""
    if not wanted:
        return dict.fromkeys(AGENTS)
    if getattr(args, "planner", None) is None:
        return {}
    from ..bundles.planners import load_agents

    here = not is_address(args.planner)
    return load_agents(args.planner, args.planner_model, args.planner_base, **(settings if here else {}))


def _editor(args: argparse.Namespace, wanted: bool, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """The component that edits, unless it is the bundle's."""
    name = getattr(args, "editor", None)
    if not wanted:
        return {"editor": None}
    if name is None:
        return {}
    if is_address(name):
        from ..remote_editor import RemoteEditor

        return {"editor": RemoteEditor(name, args.editor_model)}
    from ..pipelines.nested.loading import load_editor

    smaller = quantizing.of_editor(_quantize(args), name, dtype)
    return {"editor": load_editor(name, **_dtype(dtype), **smaller)}


def _quantize(args: argparse.Namespace) -> str | None:
    return getattr(args, "quantize", None)  # `demo` has no such option


def _dtype(dtype: torch.dtype | None) -> dict[str, Any]:
    return {} if dtype is None else {"dtype": dtype}


def check_set(pipe: ImageEditR1Pipeline | RemotePipeline, arguments: dict[str, Any]) -> None:
    """Refuse what `--set` gives and the editor does not take; by itself, since the pipeline has arguments of its own."""
    from ..pipelines.remote import RemotePipeline

    if isinstance(pipe, RemotePipeline):
        from ..remote_editor import check_remote_editor

        check_remote_editor(arguments)
    elif pipe.editor is not None:
        from ..editors import check_editor

        check_editor(pipe.editor, {**pipe.editor_defaults, **arguments})


@contextmanager
def naming() -> Iterator[None]:
    """A name inside the block that nothing has is the user's to mend."""
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        yield
    except (OSError, ValueError) as error:
        # A disk or a network that fails raises subclasses of OSError, or sets its errno: those are failures.
        misnamed = isinstance(error, (HFValidationError, RepositoryNotFoundError))
        if misnamed or (type(error) is OSError and error.errno is None):
            raise UsageError(str(error)) from error
        raise
