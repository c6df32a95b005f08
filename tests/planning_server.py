"""What a scripted server plans: every row's plan follows from its own instruction, so that another row's would be seen."""

import json

from openai_server import said
from PIL import Image

from diffusers_r1.plan import Edit, EditPlan
from diffusers_r1.prompts import Prompts
from diffusers_r1.tags import write_decomposition, write_sequence


WORDS = Prompts(decompose="Plan: {instruction}", sequence="Order them.")
COLORS = ("red", "green", "blue", "teal", "black", "white")
PICTURES = [Image.new("RGB", (3, 2), color) for color in COLORS]
INSTRUCTIONS = [f"paint the {color} thing" for color in COLORS]


def plan_of(instruction: str) -> EditPlan:
    """What the server below plans for an instruction."""
    edit = Edit("paint", instruction.split("the ")[1], "gold")
    requests = (f"paint the {edit.subject} gold",)
    answers = write_decomposition([edit], "a thing"), write_sequence(requests)
    return EditPlan(instruction, (edit,), requests, "a thing", raw=answers)


def text_of(message: dict) -> str:
    return "".join(part.get("text", "") for part in message["content"])


def instruction_of(request: dict) -> str:
    return next(text for text in map(text_of, request["messages"]) if "Plan: " in text).partition("Plan: ")[2]


def agents(body: bytes) -> dict:
    """Both agents: what the last message asks for, about the instruction of the first."""
    request = json.loads(body)
    answers = plan_of(instruction_of(request)).raw
    text = answers[text_of(request["messages"][-1]) == WORDS.sequence]
    reply = said(text)
    return {**reply, "choices": [{**reply["choices"][0], "index": i} for i in range(request.get("n", 1))]}


RIGHT = (200, agents, {})


def requests_of(server) -> list[dict]:
    return [json.loads(body) for _, _, body in server.requests if body]
