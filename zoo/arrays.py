"""Arrays in .npy files, as pictures of any number of channels. A pickled object is never read."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

from zoo.errors import ImageError

if TYPE_CHECKING:
    import numpy as np  # imported only where an array is read: every command imports this file

SUFFIX, _MAGIC = ".npy", b"\x93NUMPY"

Check = Callable[["np.dtype[Any]", tuple[int, ...]], None]


def is_array(file: IO[bytes]) -> bool:
    """Whether a binary file that can be rewound begins as .npy files do; it is left where it was."""
    try:
        start = file.tell()
        begins = file.read(len(_MAGIC)) == _MAGIC
        file.seek(start)
    except (OSError, AttributeError, io.UnsupportedOperation):
        return False
    return begins


def read_array(file: IO[bytes], check: Check) -> np.ndarray[Any, Any]:
    """The array of a .npy file. check: raises ImageError for a type and shape, before anything of that size is read."""
    import numpy as np
    from numpy.lib import format as npy

    try:
        version = npy.read_magic(file)
        header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, by_column, dtype = header(file)
    except Exception as error:  # numpy parses the header as Python, and raises what that raises
        raise ImageError("its .npy header is damaged, or of no plain array; save it again") from error
    check(dtype, shape)
    wanted = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    content = file.read(wanted)
    if len(content) < wanted:
        raise ImageError(f"incomplete: {len(content):,} of {wanted:,} bytes; fetch or save it again")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if by_column else "C")
