"""The library's version; setup.cfg is the one place that sets it."""

from importlib.metadata import version

__version__ = version("latentset")
