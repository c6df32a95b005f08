"""A second look: a critic says what of a plan a picture does not show and what was spoilt, and that is asked for again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.utils import logging
from PIL import Image

from ..editors import as_large_as, share_out
from ..endpoints import EndpointError
from ..judging import Critic, Criticism, edits_by_request
from ..plan import EditPlan, Turns
from ..planners.plans import request_by_rule
from ..records import Failure
from .call import MAX_BATCH, of_each_picture
from .checks import check_reflection
from .exclusive import Interruption
from .nested.parts import Mixin
from .pipeline_output import Turn


logger = logging.get_logger(__name__)

LEAVE_THE_REST = "leave everything else exactly as it is"


@dataclass
class _Looked:
    """A picture under criticism: the best that was made of it so far."""

    criticism: Criticism
    picture: Image.Image
    tries: int = 0


class ReflectionMixin(Mixin):
    """For a pipeline with `edit`: what came out is looked at, and what is wrong with it is asked for again."""

    @torch.no_grad()
    def reflect(
        self,
        images: Sequence[Image.Image],
        plans: Sequence[EditPlan],
        done: Sequence[Sequence[Turn]],
        critic: Critic,
        looks: int = 1,
        turns: Turns = "single",
        generators: Sequence[torch.Generator] | None = None,
        references: Sequence[Sequence[Image.Image]] | None = None,
        each: Sequence[Mapping[str, Any]] | None = None,
        max_pixels: int | None = None,
        max_batch: int = MAX_BATCH,
        interruption: Interruption | None = None,
        **editor_arguments: Any,
    ) -> list[list[Turn]]:
        """Look at pictures that were edited, and ask again for what is not there.

        What a critic finds missing is asked for alone, on the result. Where that did not help, or something was spoilt, the
        plan is carried out from the source once more in another order, and the next time in other words.
        A new picture takes the place of the best so far if the critic finds fewer faults in it, so none gets worse by the
        critic's count. A picture without known faults is left as it is.

        A critic whose server fails ends the looks at that picture with a warning: an edit that is there is not lost. One that
        refuses to work for us at all, as for a wrong key, is an error.

        Args:
            images, plans, turns, generators, references, each, max_pixels, max_batch, interruption, editor_arguments:
                As in `edit`, and as they were given to it.
            done (`Sequence` of `Sequence` of [`Turn`]): What `edit`, or an earlier `reflect`, gave for them.
            critic ([`~judging.Critic`]): Called with the source, the picture in the source's size, the plan and the instruction.
            looks (`int`, defaults to 1): The most times that a picture is edited again.

        Returns:
            `list` of `list` of [`Turn`]: for each picture, all turns in order of time. `look` numbers what was tried,
            `criticism` says what the critic thought of it, and the last one that was `kept` holds the picture.

        Raises:
            TypeError: If the critic gives something else than a [`~judging.Criticism`].
            ValueError: If `looks` is not 1 or more, or the critic says something about another number of sub-requests.
            FloatingPointError: As `edit`.
            EndpointError: If the critic's server refuses to work for us.
        """
        check_reflection(looks, critic)
        interrupted = Interruption(self) if interruption is None else interruption
        each = each or share_out(self.editor, {**self.editor_defaults, **editor_arguments}, len(images))
        generators = of_each_picture(self.editor, generators or [])
        story = [list(turns_done) for turns_done in done]
        best: dict[int, _Looked] = {}

        def found(row: int, picture: Image.Image) -> Criticism:
            try:
                return _criticize(critic, images[row], picture, plans[row])
            except KeyboardInterrupt:
                if not interrupted:
                    raise
                return Criticism((None,) * len(plans[row].requests))  # told to end: what is done is wanted

        for row, (image, record) in enumerate(zip(images, story)):
            if interrupted or not record or any(turn.interrupted for turn in record):
                continue  # half an edit is nothing to judge
            picture = last_whole(image, record)
            best[row] = _Looked(found(row, picture), picture)
            story[row] = _with_criticism(record, best[row].criticism)
        for _ in range(int(looks)):
            rows = [row for row, looked in best.items() if looked.criticism.finds_fault]
            if not rows or interrupted:
                break
            asked = [_ask_again(plans[row], best[row].criticism, best[row].tries) for row in rows]
            again = self.edit(
                [images[row] for row in rows],
                [plan for plan, _ in asked],
                turns,
                [generators[row] for row in rows] if generators else None,
                [references[row] for row in rows] if references else None,
                [each[row] for row in rows],
                max_pixels,
                max_batch,
                interrupted,
                begin=[best[row].picture if on_result else images[row] for row, (_, on_result) in zip(rows, asked)],
            )
            for row, (_, on_result), made in zip(rows, asked, again):
                look = max((turn.look for turn in story[row]), default=0) + 1
                made = [replace(turn, look=look, kept=False) for turn in made]
                if not interrupted:  # what was ended early is no whole answer, and nothing to judge
                    picture = last_whole(images[row], made, kept=False)
                    criticism = found(row, picture)
                    made = _with_criticism(made, criticism, kept=False)
                    best[row].tries += 1
                    if criticism.faults < best[row].criticism.faults:
                        best[row] = _Looked(criticism, picture)
                        made = [replace(turn, kept=True) for turn in made]
                        if not on_result:
                            story[row] = [replace(turn, kept=False) for turn in story[row]]
                story[row] += made
        return story


def last_whole(source: Image.Image, turns: Sequence[Turn], kept: bool = True) -> Image.Image:
    """What the last turn made that was not cut off; the source where there is none.

    Args:
        kept (`bool`, defaults to `True`): Of the turns that were kept, or of those that were not.
    """
    whole = (turn.image for turn in reversed(turns) if turn.kept is kept and not turn.interrupted)
    return next(whole, source)


def _criticize(critic: Critic, source: Image.Image, picture: Image.Image, plan: EditPlan) -> Criticism:
    try:
        criticism = critic(source, as_large_as(source, picture, None), plan, plan.instruction)
    except EndpointError as error:
        if error.kind is Failure.HOPELESS:  # a wrong key, say: no later picture would be looked at either
            raise
        logger.warning(f"The critic could not be asked, so the picture is left as it is: {error}")
        return Criticism((None,) * len(plan.requests))
    if not isinstance(criticism, Criticism):
        raise TypeError(f"A critic gives a `Criticism`, not {type(criticism).__name__}.")
    if len(criticism.there) != len(plan.requests):
        raise ValueError(
            f"The critic spoke of {len(criticism.there)} sub-requests; the plan has {len(plan.requests)}: {plan.requests}."
        )
    return criticism


def _ask_again(plan: EditPlan, criticism: Criticism, tries: int) -> tuple[EditPlan, bool]:
    """What is asked for after `tries` in vain from here, and whether on the result rather than on the source."""
    missing = tuple(plan.requests[place] for place in criticism.missing)
    there = tuple(request for place, request in enumerate(plan.requests) if place not in criticism.missing)
    ways: list[tuple[tuple[str, ...], bool]] = []
    if not criticism.spoilt:  # what is spoilt can only be had back from the source
        ways.append((missing, True))
    orders = (missing + there, there + missing, there[1:] + there[:1] + missing)
    ways += [(order, False) for order in orders if order != plan.requests][:1]
    words = _in_other_words(plan, criticism) + there
    ways.append((words + (LEAVE_THE_REST,) if criticism.spoilt else words, False))
    requests, on_result = ways[tries % len(ways)]
    return replace(plan, requests=requests), on_result


def _in_other_words(plan: EditPlan, criticism: Criticism) -> tuple[str, ...]:
    """The sub-requests that are missing, written from their edits where they are known."""
    edits = edits_by_request(plan)
    return tuple(
        ", ".join(map(request_by_rule, edits[place])) if edits[place] else plan.requests[place]
        for place in criticism.missing
    )


def _with_criticism(turns: Sequence[Turn], criticism: Criticism, kept: bool = True) -> list[Turn]:
    place = max(place for place, turn in enumerate(turns) if turn.kept is kept)
    return [*turns[:place], replace(turns[place], criticism=criticism), *turns[place + 1 :]]
