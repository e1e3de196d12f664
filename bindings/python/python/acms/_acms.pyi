"""The extension module; what people use is re-exported by :mod:`acms`."""

__version__: str
