"""Models that are asked about pictures: loaded here, in the way of one behind an address; and how both are asked again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from threading import Lock
from typing import Any, Protocol, TypeVar

from PIL import Image

from ..endpoints import ChatCompletion


Read = TypeVar("Read")


class ChatModel(Protocol):
    """[`~endpoints.Endpoint`] or [`LocalModel`]."""

    @property
    def model(self) -> str:
        """Its name."""
        ...

    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, temperature: float, max_tokens: int
    ) -> list[ChatCompletion]:
        """Its answers, in the way of [`Endpoint.chat`]."""
        ...


def ask(
    model: ChatModel,
    pictures: Sequence[Image.Image],
    text: str,
    read: Callable[[str], Read | None],
    again: str,
    attempts: int,
    max_tokens: int,
) -> tuple[Read | None, list[ChatCompletion]]:
    """Ask a model about pictures, at temperature 0, until its answer can be read.

    Args:
        model ([`~endpoints.Endpoint`] or [`LocalModel`]): Who is asked.
        pictures (sequence of `PIL.Image.Image`): In the order in which the text speaks of them.
        text (`str`): The question.
        read (`Callable`): What an answer says, or `None` where it cannot be read.
        again (`str`): What is said to an answer that cannot be read.
        attempts (`int`): The most answers; 1 or more.
        max_tokens (`int`): Of an answer.

    Returns:
        `tuple`: What was read, `None` if nothing could be, and all answers.
    """
    content = [*({"type": "image", "image": picture} for picture in pictures), {"type": "text", "text": text}]
    messages, answers = [{"role": "user", "content": content}], []
    for _ in range(attempts):
        answers += model.chat(messages, temperature=0, max_tokens=max_tokens)
        found = read(answers[-1].text)
        if found is not None:
            return found, answers
        # At temperature 0 the same question has the same answer: what is asked has to change.
        messages += [_says("assistant", answers[-1].text), _says("user", again)]
    return None, answers


class LocalModel:
    """A judge that is loaded here, once it is asked, in the way of [`Endpoint`]; greedy, one question at a time.

    Args:
        name (`str`): An image-text-to-text model on the Hub or in a folder.
        device, dtype (*optional*): Where and how it is loaded; an accelerator if there is one, and float32.
    """

    def __init__(self, name: str, device: Any = None, dtype: Any = None):
        self.model, self.device, self.dtype = name, device, dtype
        self._one_at_a_time = Lock()

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        import torch
        from diffusers.utils.torch_utils import get_device
        from transformers import AutoModelForImageTextToText, AutoProcessor

        model: Any = AutoModelForImageTextToText.from_pretrained(self.model, dtype=self.dtype or torch.float32)
        return model.eval().to(self.device or get_device()), AutoProcessor.from_pretrained(self.model)

    def chat(
        self, messages: Sequence[Mapping[str, Any]], temperature: float = 0, max_tokens: int = 512
    ) -> list[ChatCompletion]:
        """The model's answer, in a list of its own, see [`Endpoint.chat`]; greedy, whatever `temperature` is asked for."""
        import torch

        from ..planners.sampling import GREEDY

        with self._one_at_a_time, torch.no_grad():
            model, processor = self._loaded
            asked = processor.apply_chat_template(
                list(messages), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            ).to(model.device)
            output = model.generate(**asked, **GREEDY, max_new_tokens=max_tokens)
        said = processor.batch_decode(output[:, asked["input_ids"].shape[1] :], skip_special_tokens=True)[0]
        version = getattr(model.config, "_commit_hash", None)
        return [ChatCompletion(said, f"{self.model}@{version}" if version else self.model)]


def _says(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}
