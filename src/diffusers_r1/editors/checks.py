"""What is refused before any model runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from diffusers import ModularPipeline

from ..remote_editor import RemoteEditor, check_remote_editor
from ..schema import check_text
from .composed import check_composed
from .refusals import REFUSALS
from .shares import share_out
from .signatures import (
    arguments_of,
    hints_of,
    is_list,
    is_mapping,
    is_number,
    is_numbers,
    is_optional,
    is_tensor,
    is_text,
)
from .sizes import Editor, Size, block_of, bounded, whole_blocks
from .table import REFERENCES, TRAITS, traits_of


GIVEN_BY_THE_PLAN = ("prompt", "generator", "output_type", "return_dict", "num_images_per_prompt")
EMBEDDED_PROMPT = ("prompt_embeds", "pooled_prompt_embeds")  # and what begins so: classes refuse them beside a prompt

SIDES = ("height", "width")
COUNTS = ("num_inference_steps", "max_sequence_length", "max_area", *SIDES)
CALLED = ("callback_on_step_end", "callback")
SHOWN_TO_CALLBACK = "callback_on_step_end_tensor_inputs"
READ_BY_IP_ADAPTER = ("ip_adapter_image", "negative_ip_adapter_image")  # and what begins so, such as embeddings

# What one value is: what asks its type hint, what the value has to be, and that in words.
KINDS: tuple[tuple[Callable[[Any], bool], type | tuple[type, ...], str], ...] = (
    (is_number, Real, "a number"),
    (is_numbers, (list, tuple), "a list of numbers"),
    (is_text, (str, list, tuple), "text"),
    (is_mapping, Mapping, "a dict"),
    (is_tensor, torch.Tensor, "a tensor"),
)
LARGEST = torch.finfo(torch.float32).max  # editors compute with no wider numbers


def check_editor(
    editor: Editor, arguments: Mapping[str, Any], references: bool = False, max_pixels: int | None = None
) -> None:
    """Refuse what cannot work, before any model runs.

    Args:
        references (`bool`): Whether pictures have others beside them.
        max_pixels (`int`, *optional*): The most pixels that the editor is to work at.

    Raises:
        TypeError: If the class cannot be an editor, does not take a picture and a prompt, or does not take one of
            `arguments`.
        ValueError: If it takes one picture only and is given several, needs a mask and is given none, has no IP adapter and
            is given a picture for one, works at sizes of its own and is given `max_pixels`, or has its autoencoder in a
            type that it does not run in.
    """
    if isinstance(editor, RemoteEditor):
        check_remote_editor(arguments)
        _check_max_pixels(editor, max_pixels)
        return
    name = type(editor).__name__
    if (reason := refusal_of(editor)) is not None:
        raise TypeError(f"{name} cannot be an editor: {reason}.")
    traits, accepted = traits_of(editor), arguments_of(editor)
    planned = (traits.image, *GIVEN_BY_THE_PLAN)
    lacking = [argument for argument in (traits.image, "prompt") if argument not in accepted]
    if lacking:
        raise TypeError(f"{name} cannot be an editor: it takes no `{'` and no `'.join(lacking)}`.")
    for argument in arguments:
        if argument in planned or argument.startswith(EMBEDDED_PROMPT):
            raise TypeError(f"`{argument}` is not for the caller to give to the editor: plan and pipeline do.")
        if argument not in accepted:
            raise TypeError(
                f"{name} takes no `{argument}`. It takes: {', '.join(sorted(set(accepted) - {*planned}))}."
            )
        if argument.startswith(READ_BY_IP_ADAPTER) and arguments[argument] is not None and not _has_ip_adapter(editor):
            raise ValueError(
                f"{name} has no IP adapter that could read `{argument}`: `editor.load_ip_adapter` loads one."
            )
    if references and traits.lists != REFERENCES:
        able = ", ".join(other for other, row in TRAITS.items() if row.lists == REFERENCES)
        raise ValueError(f"{name} takes one picture per result. Several are read by: {able}.")
    if traits.mask_needed and arguments.get(traits.mask) is None:
        raise ValueError(f"{name} needs a `{traits.mask}`: white where the picture may change, black where not.")
    if traits.encodes_in is not None and editor.vae.dtype != traits.encodes_in:
        raise ValueError(f"{name} needs its autoencoder in {traits.encodes_in}: `editor.vae.to({traits.encodes_in})`.")
    if traits.mask_fixes_size and arguments.get(traits.mask) is not None:
        told = [argument for argument in ("height", "width") if arguments.get(argument)]
        if told or max_pixels is not None:
            raise ValueError(f"{name} works at a size of its own when it is given a `{traits.mask}`.")
    _check_max_pixels(editor, max_pixels)


def check_values(editor: Editor, *each: Mapping[str, Any]) -> None:
    """Refuse values of pictures' arguments that every editor of diffusers would fail on, some only after minutes.

    Args:
        each (`Mapping`): Of each picture, as `share_out` gives them, with names that `check_editor` has let pass.

    Raises:
        TypeError: If a value is not what its type hint says, such as text or None where a number belongs, or a callback cannot
            be called.
        ValueError: If 32 bits do not hold a number, a text holds half of a surrogate pair, there is less than one step, a side
            is shorter than a latent block, or a callback is to see a tensor that the class does not show.
    """
    kind, defaults, hints, block = type(editor).__name__, arguments_of(editor), hints_of(editor), block_of(editor)
    for arguments in each:
        for name, value in arguments.items():
            _check_value(kind, name, value, hints.get(name), defaults.get(name))
            if name in SIDES and value is not None and value < block:
                raise ValueError(f"`{name}` of {kind} must be {block} pixels or more, not {value!r}.")
            if name == SHOWN_TO_CALLBACK and (known := getattr(editor, "_callback_tensor_inputs", None)) is not None:
                _check_shown(kind, value, known)


def _check_value(kind: str, name: str, value: Any, hint: Any, default: Any) -> None:
    if value is None:
        if (is_number(hint) or is_list(hint)) and not is_optional(hint) and default is not None:
            raise TypeError(f"`{name}` of {kind} is a {'number' if is_number(hint) else 'list'}, not None.")
        return
    for fits, wanted, words in KINDS:
        if fits(hint) and not isinstance(value, wanted):
            raise TypeError(f"`{name}` of {kind} is {words}, not {type(value).__name__}.")
    for one in value if isinstance(value, (list, tuple)) else (value,):
        if is_numbers(hint) and not isinstance(one, Real):
            raise TypeError(f"`{name}` of {kind} is a list of numbers, and {one!r} is none.")
        if isinstance(one, str):
            check_text(one, f"`{name}`")
        if isinstance(one, Real) and not _is_held(one):
            raise ValueError(f"`{name}` must be a finite number of 32 bits, not {one!r}.")
    if is_mapping(hint) and not all(isinstance(key, str) for key in value):
        raise TypeError(f"`{name}` of {kind} is a dict with names as its keys.")
    if name in COUNTS and (not isinstance(value, Integral) or isinstance(value, bool) or value < 1):
        raise ValueError(f"`{name}` must be 1 or more, not {value!r}.")
    if name in CALLED and not callable(value):
        raise TypeError(f"`{name}` is called; {type(value).__name__} cannot be.")


def _is_held(number: Any) -> bool:
    """Whether 32 bits hold the number, which is then finite."""
    return -LARGEST <= number <= LARGEST


def _check_shown(kind: str, names: Any, known: Sequence[str]) -> None:
    """Refuse tensors that a callback cannot be shown."""
    if not isinstance(names, (list, tuple)) or not all(name in known for name in names):
        raise ValueError(
            f"`{SHOWN_TO_CALLBACK}` of {kind} is a list of names out of {', '.join(known)}, not {names!r}."
        )


def _has_ip_adapter(editor: Editor) -> bool:
    """Whether an adapter is loaded that reads pictures, in the places where diffusers looks for one."""
    denoisers = [getattr(editor, name, None) for name in ("unet", "transformer")]
    return any(
        hasattr(getattr(denoiser, "encoder_hid_proj", None), "image_projection_layers")
        or getattr(denoiser, "image_proj", None) is not None  # Stable Diffusion 3
        for denoiser in denoisers
    )


def refusal_of(editor: Editor) -> str | None:
    """Why no picture can come back from the editor; `None` where one can, as far as is known."""
    mro = [base.__name__ for base in type(editor).__mro__]
    refused = next((base for base in mro if base in TRAITS or base in REFUSALS), None)
    if refused in REFUSALS:
        return REFUSALS[refused]
    if isinstance(editor, ModularPipeline) and "images" not in {output.name for output in editor.blocks.outputs}:
        return "its blocks make no `images`"
    return None


def check_given(
    editor: Editor, arguments: Mapping[str, Any], references: bool = False, is_composed: bool = False
) -> None:
    """Refuse what an editor would refuse of every picture alike, as the pipeline's call does.

    Args:
        editor: It may be without weights: what is looked at is its class and its settings.
        arguments (`Mapping`): Given for every picture alike.
        references (`bool`): Whether pictures come with others beside them.
        is_composed (`bool`): Whether one of the ways to carry plans out is `"composed"`.

    Raises:
        TypeError, ValueError
    """
    check_editor(editor, arguments, references)
    check_values(editor, *share_out(editor, arguments, 1))
    if is_composed:
        check_composed(editor, arguments)


def working_size(editor: Editor, size: Size, arguments: Mapping[str, Any], max_pixels: int | None = None) -> Size:
    """The size at which the editor works on a picture, in every turn.

    It is `height` and `width` among the arguments. Where only one of them is given, the other follows the picture's
    aspect ratio; where neither is, the class's rule says, from the picture made smaller to what the class was made for.

    Args:
        size (`tuple` of two `int`): Width and height of the picture, in pixels.
        arguments (`Mapping`): The editor's, of this picture.
        max_pixels (`int`, *optional*): In place of the most pixels that the class was made for. A class with sizes of its
            own of about one megapixel only ever works at fewer because of it.
    """
    traits = traits_of(editor)
    width: Any = arguments.get("width")
    height: Any = arguments.get("height")
    if width and height:
        return traits.size(editor, (width, height)) if traits.snaps else (width, height)
    if width or height:
        block = block_of(editor)
        ratio = size[0] / size[1]
        other = height * ratio if height else width / ratio
        other = max(block, round(other / block) * block)
        at_work = (other, height) if height else (width, other)
        return traits.size(editor, at_work) if traits.snaps else at_work
    most = traits.pixels(editor) if callable(traits.pixels) else traits.pixels
    at_work = traits.size(editor, size if _has_own_sizes(editor) else bounded(size, max_pixels or most))
    # A rule that rounds need not keep what it gave. An editor that cannot be told a size would change it every turn.
    while "height" not in arguments_of(editor) and at_work != (settled := traits.size(editor, at_work)):
        at_work = settled
    if max_pixels is not None and _has_own_sizes(editor) and at_work[0] * at_work[1] > max_pixels:
        block = block_of(editor)
        longest, highest = bounded(at_work, max_pixels)
        at_work = max(block, longest // block * block), max(block, highest // block * block)
    return at_work


def _has_own_sizes(editor: Editor) -> bool:
    """Whether the class's rule gives sizes of its own, whatever the picture's."""
    traits = traits_of(editor)
    return traits.pixels is None and traits.size is not whole_blocks


def _check_max_pixels(editor: Editor, max_pixels: int | None) -> None:
    if max_pixels is None:
        return
    if not isinstance(max_pixels, Integral) or isinstance(max_pixels, bool) or max_pixels < 1:
        raise ValueError(f"`max_pixels` is a number of pixels, 1 or more, not {max_pixels!r}.")
    if traits_of(editor).snaps or (_has_own_sizes(editor) and "height" not in arguments_of(editor)):
        raise ValueError(f"{type(editor).__name__} works at sizes of its own, so it takes no `max_pixels`.")
