"""Print what is installed in this environment as a file of constraints for pip: the versions that the tests passed with.

`make upgrade` runs it in an environment of its own, after the tests. A Python older than the one that it runs with is not held
to these versions, since some of them do not exist for it.
"""

import sys
from importlib.metadata import distributions


LEFT_OUT = {"diffusers-r1", "pip", "setuptools", "uv"}  # this package, and what installs
HEADER = """\
# The versions that the tests passed with: `make demo`, `make test` and `make docs` install these.
# Made by `make upgrade`, which takes the newest, runs the tests and writes this file again.
"""


def main() -> None:
    python = "{}.{}".format(*sys.version_info)
    # What stands behind a plus names a build of a version, which another machine may not find.
    found = {d.name.lower().replace("_", "-"): d.version.partition("+")[0] for d in distributions()}
    print(HEADER, end="")
    for name in sorted(found.keys() - LEFT_OUT):
        print(f'{name}=={found[name]} ; python_version >= "{python}"')


if __name__ == "__main__":
    main()
