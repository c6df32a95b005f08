"""What a `DiffusionPipeline` needs when one of its components is itself a `DiffusionPipeline`.

diffusers 0.42 registers, saves and loads such a component, and then forgets it: nothing that is asked of the outer
pipeline (move, offload, show progress, load in half precision, ...) reaches it. Each override here says what it mends.
"""

from .loading import LoadingMixin
from .moving import MovingMixin
from .plain import NestedPipeline
from .remote import PlainRemoteEditor, PlainRemotePlanner
from .saving import SavingMixin


class NestedPipelineMixin(MovingMixin, LoadingMixin, SavingMixin):
    """Put before `DiffusionPipeline` among the bases of a pipeline that has pipelines as components.

    Which components those are is read off the annotations of `__init__`: `editor: DiffusionPipeline`.
    """


__all__ = ["NestedPipeline", "NestedPipelineMixin", "PlainRemoteEditor", "PlainRemotePlanner"]
