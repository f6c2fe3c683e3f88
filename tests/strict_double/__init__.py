"""A test double of CuPy: NumPy arrays behind CuPy's names, which refuse whatever CuPy refuses.

It finds, on a machine without a GPU, code that would fail or stall on one. It is a package, not a
fake of the whole of CuPy: it has what the library uses, and raises where CuPy would convert, wrap
around or transfer in silence. The fixture `device` of `conftest.py` puts it in CuPy's place.
`array.py` has the array and what it refuses, `functions.py` the functions, `cuda.py` the devices,
`compiled.py` the kernels, `ptx.py` what NVIDIA's compiler makes of them, `driver.py` what the
driver says of them, `cublas.py` the products of matrices that CUDA graphs can hold.
"""

from numpy import (
    bool_,
    dtype,
    finfo,
    float16,
    float32,
    float64,
    iinfo,
    inf,
    int8,
    int16,
    int32,
    int64,
    nan,
    newaxis,
    pi,
    uint8,
    uint16,
    uint32,
    uint64,
)

from strict_double import _core, cuda, functions
from strict_double.array import ndarray
from strict_double.compiled import RawKernel, RawModule
from strict_double.cuda import is_available
from strict_double.functions import linalg

__version__ = "14.2.0"


def get_default_memory_pool():
    """The pool that arrays are taken from."""
    return cuda.MemoryPool()


for _name, _value in vars(functions).items():
    if getattr(_value, "__module__", None) == functions.__name__ and _name[0] != "_":
        globals()[_name] = _value
