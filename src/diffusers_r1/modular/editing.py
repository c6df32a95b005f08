"""An editor's blocks, run once for each prompt of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

from diffusers import ModularPipeline, ModularPipelineBlocks, SequentialPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline import PipelineState
from diffusers.modular_pipelines.modular_pipeline_utils import ConfigSpec, InputParam, OutputParam
from PIL import Image

from ..editors import as_large_as, call_editor, check_composed, check_editor, check_values, share_out, working_size
from ..editors.checks import GIVEN_BY_THE_PLAN
from ..images import resized
from ..pipelines.call import within_size
from ..pipelines.exclusive import not_a_number_raises, one_at_a_time, with_callers_numbers
from ..pipelines.nested.parts import blocks_within
from .parameters import (
    EDITOR_DEFAULTS,
    GIVES_IMAGES,
    GIVES_PROMPTS,
    GIVES_TURN_IMAGES,
    IMAGE,
    MAX_PIXELS,
    PROMPTS,
    generator_in,
    given_to_editor,
    open_picture,
)


EDITOR = "editor"
GIVEN_BY_US = {"image", *GIVEN_BY_THE_PLAN} - {"generator"}


class EditTurnsBlock(SequentialPipelineBlocks):
    """Runs an editor's blocks once for each prompt, from picture to picture, as the pipeline calls an editor.

    All turns happen at one size, the editor's; the last picture is given the source's. A subclass names the editor's blocks,
    `block_classes = [FluxKontextAutoBlocks]`, and what that editor is called with unless the caller gives it,
    `editor_defaults = {"num_inference_steps": 8}`; [`around`] takes some that are there.
    """

    block_names = [EDITOR]
    editor_defaults: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.block_names = [EDITOR] if self.block_classes else []
        super().__init__()

    @classmethod
    def around(
        cls, blocks: ModularPipelineBlocks, editor_defaults: Mapping[str, Any] | None = None
    ) -> SequentialPipelineBlocks:
        """The block that runs these ones."""
        block: Any = cls.from_blocks_dict({EDITOR: blocks})
        block.editor_defaults = dict(editor_defaults or {})
        return block

    @property
    def description(self) -> str:
        return "Runs the editor's blocks once for each prompt of the plan, at one size."

    @property
    def expected_configs(self) -> list[ConfigSpec]:
        said = "What the editor is called with unless the caller gives it."
        return [*super().expected_configs, ConfigSpec(EDITOR_DEFAULTS, dict(self.editor_defaults), said)]

    @property
    def inputs(self) -> list[InputParam]:
        own = [self._declared(one) for one in self.sub_blocks[EDITOR].inputs if one.name not in GIVEN_BY_US]
        asked = InputParam(PROMPTS, list, required=True, description=GIVES_PROMPTS.description)
        return [IMAGE, asked, MAX_PIXELS, *own]

    def _declared(self, parameter: InputParam) -> InputParam:
        """An input of the editor's with the default that it has here."""
        if parameter.name not in self.editor_defaults:
            return parameter
        return replace(parameter, default=self.editor_defaults[parameter.name], required=False)

    @property
    def required_inputs(self) -> list[str]:
        return [one.name for one in self.inputs if one.required]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        return [GIVES_IMAGES, GIVES_TURN_IMAGES]

    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        editor, own, source, references = self.check(components, state)
        (own,) = with_callers_numbers([own])
        most: Any = state.get("max_pixels")
        size = working_size(editor, source.size if most else within_size(components, source.size), own, most)
        generator = generator_in(state)
        generators = None if generator is None else [generator]
        current, made = resized(source, size), []
        for asked in state.get(PROMPTS):
            with one_at_a_time(editor), not_a_number_raises(editor):
                made += call_editor(editor, [current], [asked], generators, [references], each=[own])
            current = resized(made[-1], current.size)
        state.set("images", [as_large_as(source, made[-1], None)])
        state.set("turn_images", made)
        return components, state

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """As of a pipeline: for the editor's blocks, of which diffusers' own asks none that are within others."""
        for block in blocks_within(self):
            if hasattr(block, "set_progress_bar_config"):
                block.set_progress_bar_config(**kwargs)

    def check(
        self, components: ModularPipeline, state: PipelineState
    ) -> tuple[ModularPipeline, dict[str, Any], Image.Image, list[Image.Image]]:
        """The editor, its arguments, the picture and its references, if they go together.

        Raises:
            TypeError, ValueError: If they do not. No model has run then.
        """
        editor, arguments = self.editor_of(components), given_to_editor(components, state)
        source, references = open_picture(state)
        most: Any = state.get("max_pixels")
        check_editor(editor, arguments, bool(references), most)
        if state.get("turns") == "composed":
            check_composed(editor, arguments)
        (own,) = share_out(editor, arguments, 1)
        check_values(editor, own)
        return editor, own, source, references

    def editor_of(self, components: ModularPipeline) -> ModularPipeline:
        """The editor alone, a pipeline of the same components."""
        editor = type(components)(blocks=deepcopy(self.sub_blocks[EDITOR]))
        parts: dict[str, Any] = {name: getattr(components, name) for name in editor.component_names}
        editor.register_components(**parts)
        editor.register_to_config(**{one.name: components.config[one.name] for one in editor.blocks.expected_configs})
        return editor
