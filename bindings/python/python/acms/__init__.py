"""Publish configuration files to storage points that agree on them, and receive them anywhere."""

from acms._acms import __version__

__all__ = ["__version__"]
