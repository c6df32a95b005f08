"""Loads this bundle into `DiffusionPipeline.from_pretrained(..., trust_remote_code=True)`.

The code is not here but in the package diffusers-r1: pip install -e . in a clone of it. With it there is a way that needs
no flag and takes every setting to the editor as well, not the dtype alone:

    from diffusers_r1 import ImageEditR1Pipeline

    pipe = ImageEditR1Pipeline.from_pretrained(...)
"""

import sys


try:
    from diffusers import DiffusionPipeline  # noqa: F401

    from diffusers_r1 import ImageEditR1Pipeline  # noqa: F401
    from diffusers_r1.pipelines.nested import NestedPipeline, PlainRemoteEditor, PlainRemotePlanner  # noqa: F401
except ImportError as error:
    raise ImportError("To load this bundle, install diffusers-r1: pip install -e . in a clone of it") from error

# What the bundle's index calls them.
RemotePlanner, RemoteEditor = PlainRemotePlanner, PlainRemoteEditor

# Here diffusers looks for the class of a component that is given in place of the bundle's own.
sys.modules.setdefault("pip_install_diffusers_r1", sys.modules[__name__])
