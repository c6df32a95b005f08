"""`python -m diffusers_r1`: the command line, where its program is not to be found."""

import sys

from .commands import main


sys.exit(main())
