"""How each editor class wants to be called: tables of facts, and the functions that read them.

Start reading at `table.py`; `call.py` is what is done with it.
"""

from .call import call_editor
from .checks import check_editor, check_given, check_values, working_size
from .composed import check_composed
from .refusals import REFUSALS
from .shares import share_out
from .signatures import arguments_of, hints_of
from .sizes import Upscaler, as_large_as
from .table import PAIRS, REFERENCES, TRAITS, Traits, traits_of
from .turns import Asked, asked_of, unread_of


__all__ = [
    "PAIRS",
    "REFERENCES",
    "REFUSALS",
    "TRAITS",
    "Asked",
    "Traits",
    "Upscaler",
    "arguments_of",
    "as_large_as",
    "asked_of",
    "call_editor",
    "check_composed",
    "check_editor",
    "check_given",
    "check_values",
    "hints_of",
    "share_out",
    "traits_of",
    "unread_of",
    "working_size",
]
