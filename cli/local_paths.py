"""Arguments and options that are paths of a file system: an address is no folder's name."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand


class LocalPaths(TyperCommand):
    """A command whose arguments and options of type Path are not on the web, nor mistyped URLs."""

    def invoke(self, ctx: Any) -> Any:
        """Run it, unless a path is an address: ``s3://b/runs`` would become the folder ``s3:``."""
        for parameter in self.params:
            value = ctx.params.get(parameter.name)
            for path in value if isinstance(value, Iterable) else (value,):
                if isinstance(path, Path) and ":" in str(path):
                    _refuse_address(path, parameter)
        return super().invoke(ctx)


def _refuse_address(path: Path, parameter: Any) -> None:
    from latentset.datasets.storage.location import find_scheme

    if scheme := find_scheme(str(path)):
        raise typer.BadParameter(
            f"{path} is an address ({scheme}:); expected a path of a file system: mount what is "
            "there, or copy it",
            param=parameter,
        )
