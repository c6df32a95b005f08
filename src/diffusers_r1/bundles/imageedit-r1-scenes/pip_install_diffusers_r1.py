"""Loads this bundle into `DiffusionPipeline.from_pretrained(..., trust_remote_code=True)`.

The code is not here but in a package: pip install diffusers-r1. With it there is a way that needs no flag and takes
every setting to the editor as well, not the dtype alone:

    from diffusers_r1 import ImageEditR1Pipeline

    pipe = ImageEditR1Pipeline.from_pretrained(...)
"""

try:
    from diffusers_r1 import ImageEditR1Pipeline  # noqa: F401
    from diffusers_r1.pipelines.nested import NestedPipeline, PlainRemoteEditor, PlainRemotePlanner  # noqa: F401
except ImportError as error:
    raise ImportError("To load this bundle: pip install diffusers-r1") from error

# What the bundle's index calls them.
RemotePlanner, RemoteEditor = PlainRemotePlanner, PlainRemoteEditor
