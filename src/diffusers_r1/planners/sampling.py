"""How `generate` is told what to draw: nothing, or from a seed."""

from ..random_state import devices_of, seeded


__all__ = ["GREEDY", "devices_of", "seeded"]

GREEDY = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
