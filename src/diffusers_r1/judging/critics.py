"""Critics: which sub-requests of a plan a picture does not show, and what was spoilt. What a second look asks for again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from PIL import Image

from ..endpoints import Endpoint
from ..matching import normalize
from ..plan import Edit, EditPlan
from ..scenes import PLACES, apply_edits, contents, place_of_edit, read_contents, read_request, read_scene
from .checklist import Checklist, Part, Question, questions_of
from .models import LocalModel


@dataclass(frozen=True)
class Criticism:
    """What a critic says of an edited picture.

    Args:
        there (`tuple` of `bool` or `None`): For each sub-request of the plan, in its order, whether the picture shows it;
            `None` where the critic cannot tell.
        spoilt (`tuple` of `str`, defaults to `()`): What is no longer as it was though nobody asked for it, in words, an entry
            for each thing.
    """

    there: tuple[bool | None, ...]
    spoilt: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[int, ...]:
        """The places of the sub-requests that are known not to be there, from 0."""
        return tuple(place for place, there in enumerate(self.there) if there is False)

    @property
    def faults(self) -> int:
        """How many sub-requests are not known to be there, and things are spoilt. What cannot be told counts like what is not
        there, so that a picture about which nothing is known is never taken for a better one."""
        return sum(there is not True for there in self.there) + len(self.spoilt)

    @property
    def finds_fault(self) -> bool:
        """Whether something is known to be wrong, so that another look can mend it."""
        return bool(self.missing or self.spoilt)


Critic: TypeAlias = Callable[[Image.Image, Image.Image, EditPlan, str], Criticism]
"""`(source, edited, plan, instruction) -> criticism`.

Both pictures are RGB and of one size. The plan is the one that was to be carried out, from the source; `there` has an entry for
each of its `requests`. `instruction` is what the user said.
"""


class ScenesCritic:
    """The exact critic of scenes: cells are read out of both pictures, and sub-requests by their wordings. No model.

    A sub-request that is no request about scenes, or names what the source does not show, is `None`; since what it would have
    changed is not known, nothing is called spoilt then.

    Example:
        >>> task = sample_task(3, "chained")  # doctest: +SKIP
        >>> plan = EditPlan(task.instruction, task.edits, task.sub_requests)  # doctest: +SKIP
        >>> ScenesCritic()(task.image, task.image, plan, task.instruction).there  # doctest: +SKIP
        (False, False)
    """

    settings = {"critic": "scenes"}

    def check(self, source: Image.Image) -> None:
        """Refuse, before anything is edited, a picture that cannot be judged.

        Raises:
            ValueError: If the picture shows no scene.
        """
        try:
            read_scene(source)
        except ValueError as error:
            raise ValueError(
                f"{error} The exact critic is for scenes; of photos, one asks a model that sees."
            ) from error

    def __call__(self, source: Image.Image, edited: Image.Image, plan: EditPlan, instruction: str) -> Criticism:
        """See [`Critic`].

        Raises:
            ValueError: If the source shows no scene.
        """
        before = after = read_scene(source)
        asked: list[int | None] = []  # for each sub-request, which of the nine cells and the background it changes
        for request in plan.requests:
            edit = read_request(request)
            place = None if edit is None else place_of_edit(after, edit)
            asked.append(place)
            if edit is not None and place is not None:
                after = apply_edits(after, [edit])
        was, should, shows = contents(before), contents(after), read_contents(edited)
        there = tuple(None if place is None else shows[place] == should[place] for place in asked)
        if None in there:
            return Criticism(there)
        names = (*PLACES, "background")
        rest = [place for place in range(len(names)) if place not in asked and shows[place] != was[place]]
        return Criticism(there, tuple(f"{names[place]}: {was[place]} became {shows[place]}" for place in rest))


_DONE = 'The second picture was to be made from the first by this change: "{request}". Has that been done?'
_REST = (
    "Leaving aside what these changes ask for: {requests}. Is everything else in the second picture as in the first?"
)


class ChecklistCritic:
    """A model that sees, asked with yes or no: is the outcome of each edit of the plan there, is all the rest as it was?

    Args:
        checklist ([`Checklist`]): Asks the model, which is loaded here ([`LocalModel`]) or behind an address
            ([`~endpoints.Endpoint`]).
    """

    def __init__(self, checklist: Checklist):
        self.checklist = checklist

    @property
    def settings(self) -> dict[str, Any]:
        """All that its verdicts depend on."""
        return {"critic": "checklist", **self.checklist.settings}

    def __call__(self, source: Image.Image, edited: Image.Image, plan: EditPlan, instruction: str) -> Criticism:
        """See [`Critic`]. Two questions and one more for each edit.

        Raises:
            EndpointError: If the model's server fails.
        """
        questions = questions_about(plan)
        answers = self.checklist.answers(source, edited, questions)
        said: list[list[bool | None]] = [[] for _ in plan.requests]
        for question, answer in zip(questions, answers):
            if question.edit is not None:
                said[question.edit].append(answer)
        there = tuple(False if False in each else None if None in each else True for each in said)
        rest = zip(questions, answers)
        return Criticism(there, tuple(each.text for each, answer in rest if each.edit is None and answer is False))


def find_critic(
    model: str | None = None, url: str | None = None, device: Any = None, dtype: Any = None
) -> ScenesCritic | ChecklistCritic:
    """The exact critic of scenes, or where a model or a server is named, one that asks it a checklist.

    Args:
        model (`str`, *optional*): A model that sees: its name at `url`, where that has several; or without a URL one to be
            loaded here once it is asked, a name on the Hub or a folder.
        url (`str`, *optional*): An OpenAI-compatible server, up to `/v1`.
        device, dtype (*optional*): Of a model that is loaded here, see [`LocalModel`].

    Raises:
        ValueError: If the URL is none.
        EndpointError: If no model is named and the server does not say which one it has.
    """
    if url is not None:
        server = Endpoint(url, model or "")
        if model is None:
            server.take_only_model()
        return ChecklistCritic(Checklist(server, concurrency=server.concurrency))
    if model is None:
        return ScenesCritic()
    return ChecklistCritic(Checklist(LocalModel(model, device, dtype)))


def questions_about(plan: EditPlan) -> tuple[Question, ...]:
    """What is asked about a picture made by a plan: the effect of each edit, and about all the rest. A sub-request that no edit
    belongs to is asked about in its own words.

    Returns:
        `tuple` of [`Question`]: `edit` is the number of the sub-request that the question is about, from 0.
    """
    questions, alone = [], []
    for number, (request, edits) in enumerate(zip(plan.requests, edits_by_request(plan))):
        effects = [each.text for each in questions_of(edits) if each.part is Part.EFFECT]
        if not effects:
            alone.append(request)
            effects = [_DONE.format(request=request)]
        questions += [Question(Part.EFFECT, text, number) for text in effects]
    if alone:
        rest = [Question(Part.PRESERVATION, _REST.format(requests="; ".join(plan.requests)))]
    else:
        rest = [each for each in questions_of(plan.edits) if each.part is Part.PRESERVATION]
    return (*questions, *rest)


def edits_by_request(plan: EditPlan) -> list[list[Edit]]:
    """For each sub-request of a plan, the edits that it asks for: those that have the most words in common with it.

    The agent that writes sub-requests may put edits in another order, and several into one.

    Example:
        >>> coat, lamp = Edit("recolor", "coat", "red"), Edit("remove", "lamp", "nothing")
        >>> edits_by_request(EditPlan("...", (coat, lamp), ("remove the lamp", "make the coat red"))) == [[lamp], [coat]]
        True
    """
    belonging: list[list[Edit]] = [[] for _ in plan.requests]
    said = [set(normalize(request).split()) for request in plan.requests]
    for number, edit in enumerate(plan.edits):
        its = set(normalize(f"{edit.action} {edit.subject} {edit.goal}").split())
        shared = [len(its & each) for each in said]
        if max(shared):
            # Of requests that share as much, its own place decides.
            belonging[max(range(len(said)), key=lambda place: (shared[place], place == number, -place))].append(edit)
    return belonging
