"""ImageEdit-R1 (arXiv 2603.08059): decompose an instruction, put its parts in order, let any diffusion editor do them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, ModularPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import logging
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from ..belongings import belongings, set_belongings
from ..editors import Asked, Upscaler, as_large_as, asked_of, call_editor, share_out, working_size
from ..images import resized
from ..judging import Critic
from ..plan import EditPlan, Fault, FaultKind, Turns
from ..planners.plans import make_plans, warn_of_fallbacks
from ..planners.remote import RemotePlanner
from ..prompts import Prompts, prompts_of
from ..remote_editor import RemoteEditor
from .call import (
    MAX_BATCH,
    Generators,
    as_planned_on,
    check_call,
    check_planning,
    in_batches,
    of_each_picture,
    within_size,
)
from .checked import EditCall, PlanCall, are_plans
from .checks import are_several, changed_plan
from .exclusive import (
    Interruption,
    check_not_inside,
    not_a_number_raises,
    one_at_a_time,
    tell_editors,
    with_callers_numbers,
)
from .nested import NestedPipelineMixin
from .nested.loading import check_component
from .nested.parts import shared_parts
from .pipeline_output import Candidate, ImageEditR1PipelineOutput, Turn
from .reflection import ReflectionMixin, last_whole
from .selection import Selector, select
from .shared_planner import SharedPlannerMixin
from .streaming import StreamingMixin


logger = logging.get_logger(__name__)


class ImageEditR1Pipeline(StreamingMixin, ReflectionMixin, SharedPlannerMixin, NestedPipelineMixin, DiffusionPipeline):
    r"""
    Pipeline for instruction-based image editing with three agents, after ImageEdit-R1 (arXiv 2603.08059).

    The decomposition agent reads picture and instruction and names actions, subjects and goals; the sequencing agent
    writes them out as ordered sub-requests; the editor, whose weights nothing here touches, carries them out.

    This model inherits from [`~diffusers.DiffusionPipeline`]: loading, saving, moving and offloading work as for any
    other pipeline, and reach the editor, a pipeline of its own, as well.

    Args:
        planner ([`~transformers.PreTrainedModel`] or [`~planners.remote.RemotePlanner`]):
            The decomposition agent: an image-text-to-text model such as
            [`~transformers.Qwen2_5_VLForConditionalGeneration`], a causal language model, which plans blindly, or either
            behind an address. `None` where plans are given.
        processor ([`~transformers.ProcessorMixin`], *optional*):
            The planner's processor; a tokenizer for a causal language model. A planner behind an address needs none.
        editor ([`~diffusers.DiffusionPipeline`] or [`~remote_editor.RemoteEditor`]):
            Any pipeline that takes `image` and `prompt`, a [`~diffusers.ModularPipeline`] too, or one behind an address.
            Replace it at any time: `pipe.editor = other`.
        sequencer ([`~transformers.PreTrainedModel`], *optional*):
            The sequencing agent. Left out, the planner answers both questions of one conversation.
        sequencer_processor ([`~transformers.ProcessorMixin`], *optional*):
            The sequencer's processor or tokenizer; needed with `sequencer`.
        prompts ([`Prompts`] or `dict`, *optional*):
            The words in which the agents are asked: those that the planner was trained with. They are the planner's, and
            go with it to another pipeline; left out, they are what the planner has already.
        editor_defaults (`dict`, *optional*):
            Arguments that this editor is called with unless the caller gives them, such as `num_inference_steps`. They
            are the editor's, and go with it; another editor has its own.
        sequence_without_adapter (`bool`, *optional*):
            Whether the planner answers the second question with its LoRA adapters switched off: the paper's untrained
            sequencing agent, on one copy of the weights. The planner's too.
    """

    model_cpu_offload_seq = "planner->sequencer->editor"
    _optional_components = ["planner", "processor", "editor", "sequencer", "sequencer_processor"]

    def __init__(
        self,
        planner: PreTrainedModel | RemotePlanner | None,
        processor: ProcessorMixin | PreTrainedTokenizerBase | None = None,
        editor: DiffusionPipeline | ModularPipeline | RemoteEditor | None = None,
        sequencer: PreTrainedModel | RemotePlanner | None = None,
        sequencer_processor: ProcessorMixin | PreTrainedTokenizerBase | None = None,
        prompts: Prompts | dict[str, str] | None = None,
        editor_defaults: dict[str, Any] | None = None,
        sequence_without_adapter: bool | None = None,
    ):
        super().__init__()
        self._interrupts = 0
        self.warned: set[str] = set()  # of what is said once and not with each picture
        self.register_modules(
            planner=planner,
            processor=processor,
            editor=editor,
            sequencer=sequencer,
            sequencer_processor=sequencer_processor,
        )
        self._complete_plain_loading()
        if self.planner is not None and prompts is not None:
            self.prompts = prompts
        if self.planner is not None and sequence_without_adapter is not None:
            self.sequence_without_adapter = sequence_without_adapter
        if editor is not None and editor_defaults is not None:
            self.editor_defaults = editor_defaults

    @property
    def prompts(self) -> Prompts:
        """The words in which the planner is asked; kept with the planner, see [`~prompts.prompts_of`]."""
        return prompts_of(self.planner)

    @prompts.setter
    def prompts(self, prompts: Prompts | dict[str, str]) -> None:
        if self.planner is None:
            raise ValueError("This pipeline has no planner, whose the prompts are; set `pipe.planner`.")
        prompts = prompts if isinstance(prompts, Prompts) else Prompts.from_dict(prompts)
        set_belongings(self.planner, prompts=prompts.to_dict())

    @property
    def sequence_without_adapter(self) -> bool:
        """Whether the planner answers the second question with its adapters off. Kept with the planner."""
        return belongings(self.planner).get("sequence_without_adapter", False)

    @sequence_without_adapter.setter
    def sequence_without_adapter(self, off: bool) -> None:
        if self.planner is None:
            raise ValueError("This pipeline has no planner, whose adapter it is; set `pipe.planner`.")
        set_belongings(self.planner, sequence_without_adapter=bool(off))

    @property
    def editor_defaults(self) -> Mapping[str, Any]:
        """Arguments that the editor is called with unless the caller gives them. Kept with the editor; set as a whole."""
        return MappingProxyType(belongings(self.editor).get("defaults", {}))

    @editor_defaults.setter
    def editor_defaults(self, defaults: Mapping[str, Any]) -> None:
        if self.editor is None:
            raise ValueError("This pipeline has no editor, whose the defaults are; set `pipe.editor`.")
        set_belongings(self.editor, defaults=dict(defaults))

    def register_modules(self, **components: Any) -> None:
        """As in diffusers; a component is refused where it is a name, and an editor that is no pipeline.

        Raises:
            TypeError: If it is one.
        """
        for name, component in components.items():
            check_component(name, component)
        super().register_modules(**components)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._optional_components:
            check_component(name, value)
            if value is not None and tuple(self.config[name]) == (None, None):
                # diffusers keeps it absent in the config, and would not save it.
                self.register_modules(**{name: value})
                return
        super().__setattr__(name, value)
        if name == "editor" and value is not None:
            set_belongings(value)  # what its folder says is noted now: a folder can go

    def check_inputs(self, *args: Any, **kwargs: Any) -> EditCall:
        """Refuse what cannot work before any model runs.

        Takes what `__call__` takes, except for `return_dict`, and returns it opened: what `run_checked` carries out.

        Raises:
            ValueError: If a number, a length or a choice does not fit.
            TypeError: If a value has the wrong type, or the editor does not take an argument.
        """
        return check_call(self, *args, **kwargs)

    def check_planning(self, *args: Any, **kwargs: Any) -> PlanCall:
        """Refuse what cannot be planned before any model runs; raises as `check_inputs` does.

        Takes pictures, instructions, `max_new_tokens`, `num_plans`, a generator and further settings (as a `dict`,
        `generation`) as `plan` does, and returns what `plan_checked` carries out.
        """
        return check_planning(self, *args, **kwargs)

    def plan(
        self,
        image: Any,
        instruction: str | list[str],
        generator: Generators = None,
        max_new_tokens: int = 512,
        num_plans: int = 1,
        constrained: bool = False,
        **generation: Any,
    ) -> EditPlan | list[EditPlan]:
        """Decompose instructions and put their parts in order, without editing.

        Args:
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor`, `str` or a list of them):
                The picture, its path or its URL. One picture goes with any number of instructions. In a list, a list
                stands for a picture and its references, as in `__call__`.
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
                too. Needs the extra `constrained` and `max_new_tokens` of 326 or more.
            generation:
                Further settings of the agents' `generate`, such as `do_sample`, `temperature` or `top_p`. Greedy by
                default.

        Returns:
            [`EditPlan`], or a list of them if `image` is a list or a batch, `instruction` a list or `num_plans` more than 1:
            `num_plans` of each instruction in turn. An answer that cannot be used does not raise: it ends in a plan with
            `fallback=True` and a warning.

        Raises:
            ValueError, TypeError: If the inputs do not fit together; nothing has run then.
        """
        call = self.check_planning(
            image, instruction, max_new_tokens, num_plans, generator, {"constrained": constrained, **generation}
        )
        plans = self.plan_checked(call)
        return plans if are_several(image, instruction) or num_plans > 1 else plans[0]

    def plan_checked(self, call: PlanCall) -> list[EditPlan]:
        """Plan what `check_planning` has checked: `num_plans` of each instruction in turn."""
        plans = self._make_plans(call)
        warn_of_fallbacks(plans)
        return plans

    @torch.no_grad()
    def _make_plans(self, call: PlanCall) -> list[EditPlan]:
        # transformers takes no number of numpy for a number.
        settings = {
            name: value.item() if isinstance(value, np.generic) else value for name, value in call.settings.items()
        }
        with one_at_a_time(self.editor if self._planner_and_editor_disturb_each_other else None, again=True):
            plans = make_plans(
                self.planner,
                self.processor,
                [as_planned_on(self.planner, image) for image in call.images],
                call.instructions,
                self.prompts,
                sequencer=None if self.sequencer is None else (self.sequencer, self.sequencer_processor),
                sequence_without_adapter=self.sequence_without_adapter,
                seed=call.seed,
                device=self._execution_device,
                references=[[as_planned_on(self.planner, one) for one in shown_too] for shown_too in call.references],
                **settings,
            )
            for hook in getattr(self, "_all_hooks", ()):  # nothing in the editor would send our models off the device
                hook.offload()
        return plans

    @property
    def _planner_and_editor_disturb_each_other(self) -> bool:
        """Whether the two cannot run at the same time: they have weights in common, or offload lets one on the device."""
        return bool(shared_parts(self) or getattr(self, "_all_hooks", ()))

    @torch.no_grad()
    def edit(
        self,
        images: Sequence[Image.Image],
        plans: Sequence[EditPlan],
        turns: Turns = "single",
        generators: Sequence[torch.Generator] | None = None,
        references: Sequence[Sequence[Image.Image]] | None = None,
        each: Sequence[Mapping[str, Any]] | None = None,
        max_pixels: int | None = None,
        max_batch: int = MAX_BATCH,
        interruption: Interruption | None = None,
        begin: Sequence[Image.Image] | None = None,
        **editor_arguments: Any,
    ) -> list[list[Turn]]:
        """Carry out plans, turn by turn.

        All turns of a picture happen at one size, the editor's, and with the same references, mask and other arguments;
        the last one's picture is not yet scaled back.

        Args:
            images (`Sequence` of `PIL.Image.Image`): RGB pictures.
            plans (`Sequence` of [`EditPlan`]): One per picture.
            turns (`"single"`, `"multi"`, `"auto"` or `"composed"`): As in `__call__`.
            generators (`Sequence` of `torch.Generator`, *optional*): One per picture; may all be the same object.
            references (`Sequence` of `Sequence` of `PIL.Image.Image`, *optional*): What the editor sees beside each
                picture.
            each (`Sequence` of `Mapping`, *optional*): The arguments of each picture, as `editors.share_out` gives them;
                worked out from `editor_arguments` if left out.
            max_pixels, max_batch (`int`, *optional*): As in `__call__`.
            interruption ([`Interruption`], *optional*): What ends it early; by default `interrupt()` from now on.
            begin (`Sequence` of `PIL.Image.Image`, *optional*): What the first turns are given in place of `images`, at the
                same sizes: pictures that were made of them.
            editor_arguments: The editor's own; a list of values for one argument is one for each picture.

        Returns:
            `list` of `list` of [`Turn`]: for each picture, its turns in order. They are fewer than its plan has, and may be
            none, only after an interruption.

        Raises:
            FloatingPointError: If the editor makes a picture of values that are no numbers.
            RuntimeError: If a callback of this editor's own steps calls it.
        """
        interrupted = Interruption(self) if interruption is None else interruption
        each = with_callers_numbers(
            each or share_out(self.editor, {**self.editor_defaults, **editor_arguments}, len(images))
        )
        with one_at_a_time(self.editor):  # its tokenizer counts, and keeps to itself whether it cuts off and fills up
            asked = [asked_of(self.editor, plan, turns, own) for plan, own in zip(plans, each)]
        self.warn_of_unread(asked)
        sizes = [self._working_size(image.size, own, max_pixels) for image, own in zip(images, each)]
        current = [resized(image, size) for image, size in zip(begin or images, sizes)]
        references = references or [[] for _ in images]
        generators = of_each_picture(self.editor, generators or [])
        done: list[list[Turn]] = [[] for _ in images]
        for turn in range(max(map(len, asked))):
            for rows in in_batches([row for row in range(len(images)) if turn < len(asked[row])], max_batch):
                given = [current[row] for row in rows]
                wanted = [asked[row][turn] for row in rows]
                drawn = [generators[row] for row in rows] if generators else None
                shown_too, own = [references[row] for row in rows], [each[row] for row in rows]
                with one_at_a_time(self.editor), not_a_number_raises(self.editor):
                    if interrupted:
                        return done
                    try:
                        with interrupted.at_the_editor():
                            answers = call_editor(self.editor, given, wanted, drawn, shown_too, each=own)
                    except KeyboardInterrupt:
                        if interrupted:  # told before, and pressed again: what is done is wanted, at once
                            return done
                        raise
                    cut = interrupted.cut()
                for row, before, what, after in zip(rows, given, wanted, answers):
                    done[row].append(
                        Turn(what.prompt, before.size, after.size, after, what.requests, what.unread, cut)
                    )
                    current[row] = resized(after, before.size)
        return done

    def _working_size(
        self, size: tuple[int, int], arguments: Mapping[str, Any], max_pixels: int | None
    ) -> tuple[int, int]:
        """The editor's size for a picture; a bundle that was made for smaller ones than its class bounds it further."""
        return working_size(self.editor, size if max_pixels else within_size(self.editor, size), arguments, max_pixels)

    @staticmethod
    def warn_of_unread(asked: Sequence[Sequence[Asked]]) -> None:
        """Say what of the prompts, for each picture turn by turn, the editor's text encoder does not read."""
        for one in {one: None for turns in asked for one in turns if one.unread}:
            logger.warning(
                f"The editor's text encoder does not read all of {one.prompt!r}. Cut off: {', '.join(one.unread)}. "
                f'With turns="auto" they get turns of their own.'
            )

    def interrupt(self) -> None:
        """End all calls that are running in other threads, or that the callback which calls this belongs to.

        They hand back what is done, marked as interrupted: a turn that was cut off is no source of another one, and a
        picture without a whole turn is the source itself. An editor that cannot stop between two steps ends its turn, unless
        `KeyboardInterrupt` follows in the call's thread, as from Ctrl-C: then it is given up.
        """
        self._interrupts += 1
        tell_editors()

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
        generator: Generators = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_plan: Callable[[EditPlan], EditPlan | None] | None = None,
        max_new_tokens: int = 512,
        generation: dict[str, Any] | None = None,
        max_batch: int = MAX_BATCH,
        max_pixels: int | None = None,
        upscale: Upscaler | None = None,
        reflect: int = 0,
        critic: Critic | None = None,
        **editor_arguments: Any,
    ) -> ImageEditR1PipelineOutput | tuple:
        r"""
        Edit pictures as instructions say.

        Args:
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor`, `str` or a list of them):
                The picture, its path or its URL. In a list, a list stands for a picture and others beside it:
                `[[photo, coat]]`. Planner and editor see all of them, and the first is edited; not every editor takes several.
            instruction (`str` or `list` of `str`, *optional*):
                What to do, in the user's words. One picture goes with several instructions and the other way round.
            plan ([`EditPlan`] or a list of them, *optional*):
                Carried out as it is, in place of `instruction`.
            turns (`"single"`, `"multi"`, `"auto"` or `"composed"`, defaults to `"single"`):
                Whether the editor gets all sub-requests at once or one after the other. The paper finds the first better:
                small artefacts of one turn are the next one's input. `"auto"` is at once, and goes on in further turns
                where the editor's text encoder does not read that much text. `"composed"` is one turn, in which the
                guidance of each sub-request is computed apart and added up, for editors with guidance of that kind.
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
            max_batch (`int`, defaults to 8):
                The most pictures in one call of the editor. With a generator for each picture the pictures do not depend
                on it.
            max_pixels (`int`, *optional*):
                The most pixels that the editor works at, in place of what its class was made for.
            upscale (`Callable`, *optional*):
                `(edited, source) -> picture`, called where the editor worked at fewer pixels than the source has, to bring
                detail back. Lanczos by default.
            reflect (`int`, defaults to 0):
                How often each picture is, at most, looked at by `critic` and edited again where something is wrong with it.
                With a `selector` the picture that it chose.
            critic (`Callable`, *optional*):
                Says which sub-requests a picture does not show and what was spoilt, such as [`~judging.ScenesCritic`] or
                [`~judging.ChecklistCritic`]; see [`~judging.Critic`]. The picture with the fewest faults comes out.
            editor_arguments:
                Anything that the editor takes: `num_inference_steps`, `guidance_scale`, `height`, `width`,
                `callback_on_step_end`, ... A list of values (`strength=[0.5, 0.8]`) is one for each picture. Pictures
                among them may be paths and URLs. A mask (`mask_image`, `mask`) may have any size.

        Returns:
            [`ImageEditR1PipelineOutput`] or `tuple`: pictures, plans, turns, and a selector's candidates.

        Raises:
            ValueError, TypeError: If the inputs do not fit together or the editor does not take an argument; nothing has
                run then.
            RuntimeError: If a callback of this editor's own steps calls the pipeline, as nothing but planning may.
        """
        call = self.check_inputs(
            image,
            instruction,
            plan,
            turns,
            num_images_per_prompt,
            num_plans,
            num_images_per_plan,
            selector,
            generator,
            output_type,
            max_batch,
            callback_on_plan,
            max_new_tokens,
            generation,
            max_pixels,
            upscale,
            reflect,
            critic,
            **editor_arguments,
        )
        output = self.run_checked(call)
        return output if return_dict else output.to_tuple()

    @torch.no_grad()
    def run_checked(self, call: EditCall, interruption: Interruption | None = None) -> ImageEditR1PipelineOutput:
        """Carry out what `check_inputs` has opened and checked.

        For callers that treat a call that cannot work apart from one that fails: nothing is opened or checked twice.

        Args:
            call ([`~pipelines.checked.EditCall`]): Of this pipeline, with its components of now.
            interruption ([`Interruption`], *optional*): What ends this call alone; by default `interrupt()` from now on.
        """
        check_not_inside(self.editor)
        interruption = Interruption(self) if interruption is None else interruption

        # 1. Decompose the instructions and put the sub-requests in order
        plans = call.given if are_plans(call.given) else self.plan_checked(call.planning)

        # 2. Let the caller see, and change, what is about to be done
        if call.callback_on_plan is not None:
            plans = [changed_plan(call.callback_on_plan, plan) for plan in plans]

        # 3. Carry the plans out, and give the pictures their sources' sizes
        sources, references = call.repeated(call.images), call.repeated(call.references)
        carried_out = [plan for plan in plans for _ in range(call.num_images_per_plan)]
        generators = [one for several in call.generators for one in several]
        each = [one for several in call.each for one in several]
        limits = {"max_pixels": call.max_pixels, "max_batch": call.max_batch, "interruption": interruption}
        done = self.edit(sources, carried_out, call.turns, generators, references, each, **limits)
        carried_out = [_with_unread(plan, record) for plan, record in zip(carried_out, done)]
        plans = carried_out[:: call.num_images_per_plan]
        pictures = [last_whole(*parts) for parts in zip(sources, done)]
        edited = [as_large_as(source, picture, call.upscale) for source, picture in zip(sources, pictures)]

        # 4. Keep the best of what was made of each picture
        candidates = []
        if call.selector is not None:
            made = [Candidate(*parts) for parts in zip(edited, carried_out, done)]
            groups = [range(start, start + call.made_of_each) for start in range(0, len(made), call.made_of_each)]
            chosen, candidates = zip(
                *(select(call.selector, sources[group[0]], [made[row] for row in group]) for group in groups)
            )
            best = [group[place] for group, place in zip(groups, chosen)]
            sources, references, carried_out, each, done, pictures, edited = (
                [values[row] for row in best]
                for values in (sources, references, carried_out, each, done, pictures, edited)
            )
            generators = [generators[row] for row in best] if generators else []
            plans = carried_out

        # 5. Look at the pictures again, and ask once more for what is not there
        if call.critic is not None:
            done = self.reflect(
                sources,
                carried_out,
                done,
                call.critic,
                call.reflect,
                call.turns,
                generators,
                references,
                each,
                **limits,
            )
            for row, (source, record, before) in enumerate(zip(sources, done, pictures)):
                if (picture := last_whole(source, record)) is not before:
                    edited[row] = as_large_as(source, picture, call.upscale)

        # 6. Give back pictures, plans and what happened
        pictures = _as_output_type(edited, call.output_type)
        return ImageEditR1PipelineOutput(pictures, plans, done, list(candidates), bool(interruption))


def _with_unread(plan: EditPlan, turns: Sequence[Turn]) -> EditPlan:
    """The plan with what this editor did not read of it among its faults, in place of what another one did not."""
    others = tuple(fault for fault in plan.faults if fault.kind is not FaultKind.UNREAD)
    unread = tuple(Fault(FaultKind.UNREAD, detail=request) for turn in turns for request in turn.unread)
    return replace(plan, faults=others + unread)


def _as_output_type(images: list[Image.Image], output_type: str) -> Any:
    if output_type == "pil":
        return images
    arrays = [VaeImageProcessor.pil_to_numpy(image)[0] for image in images]
    if output_type == "pt":
        arrays = [torch.from_numpy(array).permute(2, 0, 1) for array in arrays]
    if len({array.shape for array in arrays}) > 1:
        return arrays
    return torch.stack(arrays) if output_type == "pt" else VaeImageProcessor.pil_to_numpy(images)


def _with_components_required(method: Callable) -> None:
    """Let diffusers see no defaults of `processor` and `editor`: an argument that has one it takes for no component to load."""
    seen = inspect.signature(method)
    components = {"processor", "editor"}
    parameters = [p.replace(default=p.empty) if p.name in components else p for p in seen.parameters.values()]
    method.__signature__ = seen.replace(parameters=parameters)


_with_components_required(ImageEditR1Pipeline.__init__)
