"""The call: pictures and prompts in the form that an editor's class wants, in as few calls as it allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from diffusers import ModularPipeline
from PIL import Image

from ..endpoints import all_or_raise
from ..images import resized
from ..random_state import devices_of, seeded
from ..remote_editor import RemoteEditor, seeds_of
from .composed import composed
from .positions import with_positions
from .signatures import arguments_of, hints_of, is_text
from .sizes import Editor
from .table import PAIRS, REFERENCES, Traits, traits_of
from .turns import Asked


def call_editor(
    editor: Editor,
    images: Sequence[Image.Image],
    prompts: Sequence[str | Asked],
    generators: Sequence[torch.Generator] | None = None,
    references: Sequence[Sequence[Image.Image]] | None = None,
    each: Sequence[Mapping[str, Any]] | None = None,
    **arguments: Any,
) -> list[Image.Image]:
    """Carry out one prompt on each picture, in as few calls as the editor's class allows.

    Args:
        editor ([`~diffusers.DiffusionPipeline`] or [`~diffusers.ModularPipeline`]): Any that takes `image` and `prompt`.
        images (`Sequence` of `PIL.Image.Image`): RGB, each at its `working_size`.
        prompts (`Sequence` of `str` or [`Asked`]): One per picture.
        generators (`Sequence` of `torch.Generator`, *optional*): One per picture; may all be the same object, which the
            pictures then draw from in order.
        references (`Sequence`, *optional*): For each picture, those that the editor sees beside it.
        each (`Sequence` of `Mapping`, *optional*): For each picture, arguments of its own, as `share_out` gives them.
        arguments: The editor's own, the same for all pictures; see `check_editor`.

    Returns:
        `list` of `PIL.Image.Image`, one per picture.

    Raises:
        EndpointError: If an editor behind an address failed at one of them: the first one's.
    """
    traits, accepted, hints = traits_of(editor), arguments_of(editor), hints_of(editor)
    asked = [prompt if isinstance(prompt, Asked) else Asked(prompt, (prompt,)) for prompt in prompts]
    own = [{**arguments, **(each[row] if each else {})} for row in range(len(images))]
    texts = [name for name, hint in hints.items() if is_text(hint)]
    one_generator = generators is not None and any(generator is generators[0] for generator in generators[1:])
    if isinstance(editor, RemoteEditor):
        masks = [mine.pop(traits.mask, None) for mine in own]
        masks = [mask and mask.resize(image.size, Image.Resampling.NEAREST) for mask, image in zip(masks, images)]
        texts_of_all = [one.prompt for one in asked]
        seeds = None if generators is None else seeds_of(generators)
        return all_or_raise(editor.edit_many(images, texts_of_all, references, masks, seeds, own))
    results: dict[int, Image.Image] = {}
    for rows in _groups(images, asked, own, texts, traits.lists == PAIRS, in_order=one_generator):
        first = rows[0]
        width, height = images[first].size
        masked = own[first].get(traits.mask) is not None
        told = not (masked and traits.mask_fixes_size)
        sized = {"width": width, "height": height, "max_area": width * height} if told else {}
        shown_too = [_brought_to(traits, editor, references[row]) if references else [] for row in rows]
        pictures = [[images[row], *others] for row, others in zip(rows, shown_too)]
        wanted = [traits.prompt(asked[row].first, len(shown)) for row, shown in zip(rows, pictures)]
        given = {
            **{name: value for name, value in sized.items() if name in accepted},
            **{name: value for name, value in traits.always.items() if name in accepted},
            **own[first],
            traits.image: pictures[0] if traits.lists == REFERENCES else [shown[0] for shown in pictures],
            "prompt": wanted,
            "output_type": "pil",
        }
        if masked:
            given[traits.mask] = given[traits.mask].resize(images[first].size, Image.Resampling.NEAREST)
        if _ignores_guidance(accepted, given):
            given["negative_prompt"] = " "
        if generators is not None:
            chosen = [generators[row] for row in rows]
            given["generator"] = chosen[0] if all(generator is chosen[0] for generator in chosen) else chosen
        if len(rows) == 1:
            given["prompt"] = wanted[0]
            if traits.lists != REFERENCES:
                given[traits.image] = images[first]
        else:
            for name in texts:
                if isinstance(given.get(name), str):
                    given[name] = [own[row].get(name, given[name]) for row in rows]
        with (
            _seeded_by(editor, given.get("generator")),
            with_positions(editor),
            composed(editor, [asked[row] for row in rows], given),
        ):
            if traits.before is not None:
                given |= traits.before(editor, given)
            run: Any = editor  # diffusers declares no `__call__` for all of its pipelines
            answer = run(**given, output="images") if isinstance(editor, ModularPipeline) else run(**given)
        made = answer if isinstance(answer, list) else getattr(answer, traits.answer)
        results |= dict(zip(rows, made, strict=True))
    return [results[row] for row in range(len(images))]


def _groups(
    images: Sequence[Image.Image],
    asked: Sequence[Asked],
    own: Sequence[Mapping[str, Any]],
    texts: Sequence[str],
    batched: bool,
    in_order: bool,
) -> list[list[int]]:
    """Rows that one call can do: of one size, with the same arguments but for texts, as far as the editor takes a batch.

    Composed turns share a call with those of as many sub-requests.

    Args:
        in_order (`bool`): Only neighbours, since pictures draw from one generator in turn.
    """

    def fit(row: int, other: int) -> bool:
        alike = asked[row].composed == asked[other].composed and (
            not asked[row].composed or len(asked[row].requests) == len(asked[other].requests)
        )
        return alike and images[row].size == images[other].size and _same(own[row], own[other], texts)

    groups: list[list[int]] = []
    for row in range(len(images)):
        open_groups = groups[-1:] if in_order else groups
        group = next((group for group in open_groups if batched and fit(row, group[0])), None)
        if group is not None:
            group.append(row)
        else:
            groups.append([row])
    return groups


def _same(first: Mapping[str, Any], second: Mapping[str, Any], texts: Sequence[str]) -> bool:
    """Whether two pictures' arguments can go into one call."""

    def equal(name: str) -> bool:
        one, other = first.get(name), second.get(name)
        if name in texts and isinstance(one, str) and isinstance(other, str):
            return True
        plain = isinstance(one, (str, int, float, tuple)) and isinstance(other, (str, int, float, tuple))
        return one is other or (plain and one == other)

    return all(equal(name) for name in {**first, **second})


def _brought_to(traits: Traits, editor: Editor, references: Sequence[Image.Image]) -> list[Image.Image]:
    if traits.reference is None:
        return list(references)
    return [resized(picture, traits.reference(editor, picture.size)) for picture in references]


def _ignores_guidance(accepted: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether guidance is on, and off in fact: editors that take `true_cfg_scale` use it with a negative prompt only."""
    scale = given.get("true_cfg_scale", accepted.get("true_cfg_scale", 1.0))
    return scale > 1 and given.get("negative_prompt") is None and given.get("negative_prompt_embeds") is None


def _seeded_by(
    editor: Editor, generator: torch.Generator | list[torch.Generator] | None
) -> AbstractContextManager[None]:
    """Let the generator's seed cover what an editor draws without asking it, and leave the global state as it was.

    OmniGen and JoyImage draw the latents of the picture that they are given so.
    """
    if generator is None:
        return nullcontext()
    models = [part for part in getattr(editor, "components", {}).values() if isinstance(part, torch.nn.Module)]
    first = generator[0] if isinstance(generator, list) else generator
    return seeded(first.initial_seed(), devices_of(*models))
