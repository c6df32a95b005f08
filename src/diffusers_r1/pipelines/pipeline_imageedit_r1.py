"""ImageEdit-R1 (arXiv 2603.08059): decompose an instruction, put its parts in order, let any diffusion editor do them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import logging
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from ..editors import call_editor, check_editor, open_masks, working_size
from ..images import load_samples, pair
from ..plan import EditPlan, Turns
from ..planners.adapters import has_adapter
from ..planners.plans import make_plans
from ..prompts import Prompts
from .nested import NestedPipelineMixin
from .pipeline_output import Candidate, ImageEditR1PipelineOutput, Turn
from .selection import Selector, select
from .shared_planner import SharedPlannerMixin, with_adapter
from .streaming import StreamingMixin


logger = logging.get_logger(__name__)


class ImageEditR1Pipeline(StreamingMixin, SharedPlannerMixin, NestedPipelineMixin, DiffusionPipeline):
    r"""
    Pipeline for instruction-based image editing with three agents, after ImageEdit-R1 (arXiv 2603.08059).

    The decomposition agent reads picture and instruction and names actions, subjects and goals; the sequencing agent
    writes them out as ordered sub-requests; the editor, whose weights nothing here touches, carries them out.

    This model inherits from [`~diffusers.DiffusionPipeline`]: loading, saving, moving and offloading work as for any
    other pipeline, and reach the editor, a pipeline of its own, as well.

    Args:
        planner ([`~transformers.PreTrainedModel`]):
            The decomposition agent: an image-text-to-text model such as
            [`~transformers.Qwen2_5_VLForConditionalGeneration`], or a causal language model, which plans blindly.
        processor ([`~transformers.ProcessorMixin`]):
            The planner's processor; a tokenizer for a causal language model.
        editor ([`~diffusers.DiffusionPipeline`]):
            Any pipeline that takes `image` and `prompt`, a [`~diffusers.ModularPipeline`] too. Replace it at any time:
            `pipe.editor = other`.
        sequencer ([`~transformers.PreTrainedModel`], *optional*):
            The sequencing agent. Left out, the planner answers both questions of one conversation.
        sequencer_processor ([`~transformers.ProcessorMixin`], *optional*):
            The sequencer's processor or tokenizer; needed with `sequencer`.
        prompts ([`Prompts`] or `dict`, *optional*):
            The words in which the agents are asked; those that the planner was trained with. Stored in the bundle.
        editor_defaults (`dict`, *optional*):
            Arguments that this editor is called with unless the caller gives them, such as `num_inference_steps`.
            Stored in the bundle, and forgotten when the editor is replaced.
        sequence_without_adapter (`bool`, *optional*, defaults to `False`):
            Whether the planner answers the second question with its LoRA adapters switched off: the paper's untrained
            sequencing agent, on one copy of the weights. Stored in the bundle.
    """

    model_cpu_offload_seq = "planner->sequencer->editor"
    _optional_components = ["planner", "processor", "editor", "sequencer", "sequencer_processor"]

    def __init__(
        self,
        planner: PreTrainedModel,
        processor: ProcessorMixin | PreTrainedTokenizerBase,
        editor: DiffusionPipeline,
        sequencer: PreTrainedModel | None = None,
        sequencer_processor: ProcessorMixin | PreTrainedTokenizerBase | None = None,
        prompts: Prompts | dict[str, str] | None = None,
        editor_defaults: dict[str, Any] | None = None,
        sequence_without_adapter: bool = False,
    ):
        super().__init__()
        self.register_modules(
            planner=planner,
            processor=processor,
            editor=editor,
            sequencer=sequencer,
            sequencer_processor=sequencer_processor,
        )
        words = prompts if isinstance(prompts, Prompts) else Prompts(**(prompts or {}))
        self.register_to_config(
            prompts=asdict(words),
            editor_defaults=dict(editor_defaults or {}),
            sequence_without_adapter=sequence_without_adapter,
        )

    @property
    def prompts(self) -> Prompts:
        """The words in which the agents are asked. Set it when you set a planner that was trained with others."""
        return Prompts(**self.config.prompts)

    @prompts.setter
    def prompts(self, prompts: Prompts) -> None:
        self.register_to_config(prompts=asdict(prompts))

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "editor" and self.__dict__.get("editor") not in (None, value):
            self.register_to_config(editor_defaults={})
        super().__setattr__(name, value)

    def check_inputs(
        self,
        images: list[Image.Image],
        given: list[str] | list[EditPlan],
        turns: Turns,
        num_images_per_prompt: int,
        generator: torch.Generator | list[torch.Generator] | None,
        output_type: str,
        editor_arguments: dict[str, Any],
        references: bool = False,
    ) -> None:
        """Refuse what cannot work before any model runs. `given` holds instructions or plans, one per picture.

        Raises:
            ValueError: If a number, a length or a choice does not fit.
            TypeError: If a value has the wrong type, or the editor does not take an argument.
        """
        if len(given) != len(images):
            raise ValueError(f"{len(images)} pictures do not go with {len(given)} instructions or plans.")
        if not all(isinstance(one, EditPlan) for one in given):
            self.check_instructions(given)
        if turns not in ("single", "multi"):
            raise ValueError(f'`turns` must be "single" or "multi", not {turns!r}.')
        if not isinstance(num_images_per_prompt, int) or num_images_per_prompt < 1:
            raise ValueError(f"`num_images_per_prompt` must be 1 or more, not {num_images_per_prompt!r}.")
        if isinstance(generator, list) and len(generator) != len(images) * num_images_per_prompt:
            raise ValueError(
                f"{len(generator)} generators do not go with {len(images)} pictures, {num_images_per_prompt} of each."
            )
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f'`output_type` must be "pil", "np" or "pt", not {output_type!r}.')
        if self.editor is None:
            raise ValueError("This pipeline has no editor; set `pipe.editor`.")
        check_editor(self.editor, {**self.config.editor_defaults, **editor_arguments}, references)

    def check_choice(
        self,
        selector: Selector | None,
        num_plans: int,
        num_images_per_plan: int,
        num_images_per_prompt: int,
        planned: bool,
    ) -> None:
        """Refuse numbers of candidates that do not fit; raises as `check_inputs` does."""
        for name, number in {"num_plans": num_plans, "num_images_per_plan": num_images_per_plan}.items():
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"`{name}` must be 1 or more, not {number!r}.")
            if number > 1 and selector is None:
                raise ValueError(f"`{name}` makes candidates, of which a `selector` keeps one; there is none.")
        if selector is not None and not callable(selector):
            raise TypeError(f"`selector` is called; {type(selector).__name__} cannot be.")
        if selector is not None and num_images_per_prompt != 1:
            raise ValueError(
                "A `selector` keeps one picture; give `num_images_per_plan`, not `num_images_per_prompt`."
            )
        if num_plans > 1 and not planned:
            raise ValueError("`num_plans` is for instructions; a `plan` is there already.")

    def check_instructions(self, instructions: list[str]) -> None:
        """Refuse what cannot be planned; raises as `check_inputs` does."""
        for instruction in instructions:
            if not isinstance(instruction, str):
                raise TypeError(f"An instruction is text, not {type(instruction).__name__}; a plan is an `EditPlan`.")
            if not instruction.strip():
                raise ValueError("An instruction is empty.")
        if self.planner is None or self.processor is None:
            raise ValueError("This pipeline has no planner, so it needs a `plan` in place of an instruction.")
        if self.sequencer is not None and self.sequencer_processor is None:
            raise ValueError("This pipeline has a sequencer without its `sequencer_processor`.")
        if self.config.sequence_without_adapter and not has_adapter(self.planner):
            raise ValueError("`sequence_without_adapter` is set, and the planner has no adapter to switch off.")

    @torch.no_grad()
    @with_adapter
    def plan(
        self,
        image: Any,
        instruction: str | list[str],
        generator: torch.Generator | list[torch.Generator] | None = None,
        max_new_tokens: int = 512,
        num_plans: int = 1,
        constrained: bool = False,
        **generation: Any,
    ) -> EditPlan | list[EditPlan]:
        """Decompose instructions and put their parts in order, without editing.

        Args:
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor`, `str` or a list of them):
                The picture, its path or its URL. One picture goes with any number of instructions.
            instruction (`str` or `list` of `str`):
                What to do, in the user's words. A list is planned in one batch.
            generator (`torch.Generator` or a list, *optional*):
                Seeds the sampling, where there is any.
            max_new_tokens (`int`, defaults to 512):
                The most tokens that each agent's answer may have.
            num_plans (`int`, defaults to 1):
                How many plans are made of each instruction. More than one are sampled, at temperature 1 unless
                `temperature` is given; the picture is read once for all of them.
            constrained (`bool`, defaults to `False`):
                Let the agents write nothing but their format, so that a planner that was never trained for it has it,
                too. Needs `pip install "diffusers-r1[constrained]"` and `max_new_tokens` of 326 or more.
            generation:
                Further settings of the agents' `generate`, such as `do_sample`, `temperature` or `top_p`. Greedy by
                default.

        Returns:
            [`EditPlan`], or a list of them if `image` or `instruction` is a list or `num_plans` is more than 1:
            `num_plans` of each instruction in turn. An answer that cannot be used does not raise: it ends in a plan with
            `fallback=True` and a warning.
        """
        images, instructions = pair(load_samples(image)[0], instruction)
        many = isinstance(image, (list, tuple)) or isinstance(instruction, (list, tuple)) or num_plans > 1
        if len(images) != len(instructions):
            raise ValueError(f"{len(images)} pictures do not go with {len(instructions)} instructions.")
        self.check_instructions(instructions)
        plans = self._make_plans(
            images,
            instructions,
            generator,
            num_plans=num_plans,
            constrained=constrained,
            max_new_tokens=max_new_tokens,
            **generation,
        )
        self.maybe_free_model_hooks()  # nothing in the editor would send the planner off the device
        self._warn_of_fallbacks(plans)
        return plans if many else plans[0]

    @torch.no_grad()
    def _make_plans(
        self,
        images: list[Image.Image],
        instructions: list[str],
        generator: torch.Generator | list[torch.Generator] | None,
        **settings: Any,
    ) -> list[EditPlan]:
        first = generator[0] if isinstance(generator, list) else generator
        return make_plans(
            self.planner,
            self.processor,
            images,
            instructions,
            self.prompts,
            sequencer=None if self.sequencer is None else (self.sequencer, self.sequencer_processor),
            sequence_without_adapter=self.config.sequence_without_adapter,
            seed=0 if first is None else first.initial_seed(),
            device=self._execution_device,
            **settings,
        )

    @staticmethod
    def _warn_of_fallbacks(plans: list[EditPlan]) -> None:
        for plan in plans:
            if plan.fallback:
                logger.warning(f"Planning fell back for {plan.instruction!r}: {plan.reason}.")

    @torch.no_grad()
    def edit(
        self,
        images: list[Image.Image],
        plans: list[EditPlan],
        turns: Turns = "single",
        generator: torch.Generator | list[torch.Generator] | None = None,
        references: list[list[Image.Image]] | None = None,
        masks: list[Image.Image] | None = None,
        **editor_arguments: Any,
    ) -> list[list[Turn]]:
        """Carry out plans, turn by turn.

        All turns of a picture happen at one size, the editor's, and with the same references and mask; the last one's
        picture is not yet scaled back.

        Args:
            images (`list` of `PIL.Image.Image`): RGB pictures.
            plans (`list` of [`EditPlan`]): One per picture.
            turns (`"single"` or `"multi"`): Whether all sub-requests are one prompt, or each its own turn.
            generator: As the editor takes it; a list holds one per picture.
            references (`list` of `list` of `PIL.Image.Image`, *optional*): What the editor sees beside each picture.
            masks (`list` of `PIL.Image.Image`, *optional*): Where each picture may change: white, of mode L. Fewer
                references or masks than pictures go round among neighbours: two masks of four pictures, two each.
            editor_arguments: The editor's own.

        Returns:
            `list` of `list` of [`Turn`]: for each picture, its turns in order, at least one.
        """
        arguments = {**self.config.editor_defaults, **editor_arguments}
        prompts = [plan.prompts(turns) for plan in plans]
        generators = generator if isinstance(generator, list) else [generator] * len(images)
        current = [_resized(image, working_size(self.editor, image.size, arguments)) for image in images]
        references = _spread(references or [[]], len(images))
        masks = [
            mask.resize(image.size, Image.Resampling.NEAREST)
            for mask, image in zip(_spread(masks or [], len(images)), current)
        ]
        done: list[list[Turn]] = [[] for _ in images]
        for turn in range(max(map(len, prompts))):
            rows = [row for row in range(len(images)) if turn < len(prompts[row])]
            given = [current[row] for row in rows]
            asked = [prompts[row][turn] for row in rows]
            drawn = None if generator is None else [generators[row] for row in rows]
            beside, where = [references[row] for row in rows], [masks[row] for row in rows] if masks else None
            answers = call_editor(self.editor, given, asked, drawn, beside, where, **arguments)
            for row, before, prompt, after in zip(rows, given, asked, answers):
                done[row].append(Turn(prompt, before.size, after.size, after))
                current[row] = _resized(after, before.size)
        return done

    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        instruction: str | list[str] | None = None,
        plan: EditPlan | list[EditPlan] | None = None,
        turns: Turns = "single",
        num_images_per_prompt: int = 1,
        num_plans: int = 1,
        num_images_per_plan: int = 1,
        selector: Selector | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_plan: Callable[[EditPlan], EditPlan | None] | None = None,
        max_new_tokens: int = 512,
        generation: dict[str, Any] | None = None,
        **editor_arguments: Any,
    ) -> ImageEditR1PipelineOutput | tuple:
        r"""
        Edit pictures as instructions say.

        Args:
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor`, `str` or a list of them):
                The picture, its path or its URL. In a list, a list stands for a picture and others that the editor sees
                beside it: `[[photo, coat]]`. The first is planned on and edited; not every editor takes several.
            instruction (`str` or `list` of `str`, *optional*):
                What to do, in the user's words. One picture goes with several instructions and the other way round.
            plan ([`EditPlan`] or a list of them, *optional*):
                Carried out as it is, in place of `instruction`.
            turns (`"single"` or `"multi"`, defaults to `"single"`):
                Whether the editor gets all sub-requests at once or one after the other. The paper finds the first better:
                small artefacts of one turn are the next one's input.
            num_images_per_prompt (`int`, defaults to 1):
                How many pictures are made of each plan, and come out.
            num_plans (`int`, defaults to 1):
                How many plans of each instruction are sampled for `selector` to choose from.
            num_images_per_plan (`int`, defaults to 1):
                How many pictures are made of each of these plans for `selector` to choose from.
            selector (`Callable`, *optional*):
                Best of n: called with the source, the instruction and the list of all pictures made of it; returns a
                score for each, or the index of the one that comes out. See [`~selection.Selector`].
            generator (`torch.Generator` or a list of them, *optional*):
                Makes the editor's noise, and seeds the planner's sampling, where there is any. A list holds one per
                picture that is made.
            output_type (`"pil"`, `"np"` or `"pt"`, defaults to `"pil"`):
                The form of the pictures that come out.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImageEditR1PipelineOutput`] rather than a tuple.
            callback_on_plan (`Callable`, *optional*):
                Called with each plan before any pixel is touched. If it returns a plan, that one is carried out.
            max_new_tokens (`int`, defaults to 512):
                The most tokens that each agent's answer may have.
            generation (`dict`, *optional*):
                Further settings of `plan`: `{"do_sample": True, "temperature": 0.7}`, `{"constrained": True}`. Greedy by
                default.
            editor_arguments:
                Anything that the editor takes: `num_inference_steps`, `guidance_scale`, `height`, `width`,
                `callback_on_step_end`, ... A mask (`mask_image`, `mask`) may have any size, and be a list of one for
                each picture.

        Returns:
            [`ImageEditR1PipelineOutput`] or `tuple`: pictures, plans, turns, and a selector's candidates.

        Raises:
            ValueError, TypeError: If the inputs do not fit together or the editor does not take an argument; nothing has
                run then.
        """
        # 1. Open the pictures and check everything that can be checked
        if (instruction is None) == (plan is None):
            raise ValueError("Give either `instruction`, which is planned, or `plan`, which is carried out as it is.")
        pictures, references = load_samples(image)
        images, given = pair(pictures, instruction if plan is None else plan)
        self.check_choice(selector, num_plans, num_images_per_plan, num_images_per_prompt, planned=plan is None)
        of_plan = num_images_per_prompt if selector is None else num_images_per_plan
        of_picture = num_plans * of_plan
        self.check_inputs(images, given, turns, of_picture, generator, output_type, editor_arguments, any(references))
        masks = open_masks(self.editor, editor_arguments, len(images))

        # 2. Decompose the instructions and put the sub-requests in order
        plans = given
        if plan is None:
            plans = self.plan(images, given, generator, max_new_tokens, num_plans, **(generation or {}))

        # 3. Let the caller see, and change, what is about to be done
        if callback_on_plan is not None:
            plans = [callback_on_plan(plan) or plan for plan in plans]

        # 4. Carry the plans out, and give the pictures their sources' sizes
        sources = [image for image in images for _ in range(of_picture)]
        repeated = [plan for plan in plans for _ in range(of_plan)]
        done = self.edit(sources, repeated, turns, generator, references, masks, **editor_arguments)
        self.maybe_free_model_hooks()
        edited = [_resized(record[-1].image, source.size) for record, source in zip(done, sources)]

        # 5. Keep the best of what was made of each picture
        candidates = []
        if selector is not None:
            made = [Candidate(*parts) for parts in zip(edited, repeated, done)]
            groups = [made[start : start + of_picture] for start in range(0, len(made), of_picture)]
            chosen, candidates = zip(*(select(selector, source, group) for source, group in zip(images, groups)))
            best = [group[place] for group, place in zip(groups, chosen)]
            edited, plans, done = map(list, zip(*((one.image, one.plan, one.turns) for one in best)))

        # 6. Give back pictures, plans and what happened
        output = ImageEditR1PipelineOutput(_as_output_type(edited, output_type), plans, done, list(candidates))
        return output if return_dict else output.to_tuple()


def _spread(values: list, length: int) -> list:
    """Each of `values` as often in a row as makes `length` of them."""
    return [values[place * len(values) // length] for place in range(length if values else 0)]


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _as_output_type(images: list[Image.Image], output_type: str) -> Any:
    if output_type == "pil":
        return images
    arrays = [VaeImageProcessor.pil_to_numpy(image)[0] for image in images]
    if output_type == "pt":
        arrays = [torch.from_numpy(array).permute(2, 0, 1) for array in arrays]
    if len({array.shape for array in arrays}) > 1:
        return arrays
    return torch.stack(arrays) if output_type == "pt" else VaeImageProcessor.pil_to_numpy(images)
