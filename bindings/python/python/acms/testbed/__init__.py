"""The testbed's command line: ``python -m acms.testbed`` is ``acms-testbed``."""
