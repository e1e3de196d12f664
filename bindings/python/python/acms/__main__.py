"""The command ``acms``: ``python -m acms`` and the console script.

Storage points and receivers run as children that start here, so this imports the extension and nothing else.
"""

import sys

from acms import _acms


def main() -> int:
    """Run the command line and return its exit code."""
    return _acms.main(["acms", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
