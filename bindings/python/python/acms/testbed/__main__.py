"""The command ``acms-testbed``: ``python -m acms.testbed`` and the console script."""

import sys

from acms import _acms


def main() -> int:
    """Run the command line and return its exit code."""
    return _acms.testbed_main(["acms-testbed", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
