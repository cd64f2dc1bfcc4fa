"""The folder of full data sets, which are not part of the package."""

from __future__ import annotations

import os
from pathlib import Path

from fusewire.errors import InputError

_VARIABLE = "FUSEWIRE_DATA"


def data_folder(name: str) -> Path:
    """A data set in the folder that the environment variable FUSEWIRE_DATA names.

    Args:
        name: of the file or folder in it, such as "fashion-mnist" or "fsdd".

    Raises:
        InputError: the variable is not set, or the data set is not there.
    """
    root = os.environ.get(_VARIABLE)
    if not root:
        raise InputError(f"{_VARIABLE} is not set; it names the folder that holds {name}")
    path = Path(root) / name
    if not path.exists():
        raise InputError(f"{path} does not exist; {_VARIABLE} names the folder that holds {name}")
    return path
