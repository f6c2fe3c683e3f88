"""The array of the test double: a NumPy array that pretends to live on a GPU, and refuses to mix.

`operand` and `array_of` open such an array for a NumPy function and refuse what CuPy refuses, or
takes at a price; `wrapped` closes the result up again. The functions are in `functions.py`,
devices and memory in `cuda.py`. That names and parameters are CuPy's is tested, where CuPy is.
"""

from __future__ import annotations

import functools
import inspect
import operator
from typing import TypeAlias

import numpy as np

from strict_double import cuda

# What a parameter of a borrowed function may be given; without an annotation, no array.
Array: TypeAlias = "ndarray | None"
Arrays: TypeAlias = "list[ndarray]"
Operand: TypeAlias = "ndarray | float | None"
Kind: TypeAlias = "str | None"


class ndarray:
    """What `cupy.ndarray` is to the library, over the NumPy array `host`.

    base: the array that owns the memory, for a view.  data: where it is, as CuPy's MemoryPointer,
    of which each holds one reference to `data.mem`. A part x[…] has a pointer of its own; x.T,
    x.reshape(…) and the like share x's.
    """

    __slots__ = ("__weakref__", "base", "data", "host")
    __hash__ = None
    __array_ufunc__ = None  # np.tanh(x) and ndarray * x are errors, where CuPy takes the first

    def __init__(self, shape, dtype=float, memptr=None, strides=None, order="C"):
        if memptr is not None or strides is not None:
            raise NotImplementedError("the double makes no arrays over given memory")
        self._own(np.empty(shape, dtype, order))

    def _own(self, host):
        """Hold an array whose memory no other array of the double holds."""
        self.host = host
        self.base = None
        self.data = cuda.MemoryPointer(cuda.Memory(root(host)), host)

    def _view(self, host):
        """Another array on this one's memory; with this one's pointer if it starts at its place."""
        made = object.__new__(type(self))
        made.host = host
        made.base = self if self.base is None else self.base
        same = address(host) == address(self.host)
        made.data = self.data if same else cuda.MemoryPointer(self.data.mem, host)
        return made

    # What it is.

    dtype = property(lambda self: self.host.dtype)
    shape = property(lambda self: self.host.shape)
    strides = property(lambda self: self.host.strides)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    itemsize = property(lambda self: self.host.itemsize)
    nbytes = property(lambda self: self.host.nbytes)
    device = property(lambda self: self.data.device)
    flags = property(lambda self: Flags(self.host))
    T = property(lambda self: wrapped(self.host.T, self))

    def __len__(self):
        return len(self.host)

    def __iter__(self):
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[k] for k in range(len(self)))

    def __repr__(self):
        return repr(self.host)

    def __str__(self):
        return str(self.host)

    def __format__(self, spec):
        return format(self.host, spec)

    # Out of the double: what is said aloud is a transfer, the rest is refused.

    def get(self, stream=None, order="C", out=None, blocking=True):
        cuda.check_not_capturing()
        if out is None:
            return np.array(self.host, order=order)
        np.copyto(out, self.host)
        return out

    def item(self):
        cuda.check_not_capturing()
        return self.host.item()

    def tolist(self):
        cuda.check_not_capturing()
        return self.host.tolist()

    def tobytes(self, order="C"):
        return self.host.tobytes(order)

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_function__(self, function, types, args, kwargs):
        raise TypeError(f"numpy.{function.__name__} was called on an array of the double")

    def __bool__(self):
        raise TypeError("bool() of a device array waits for the GPU; say .item() instead")

    def __int__(self):
        raise TypeError("int() of a device array waits for the GPU; say .item() instead")

    def __float__(self):
        raise TypeError("float() of a device array waits for the GPU; say .item() instead")

    @property
    def __cuda_array_interface__(self):
        interface = self.host.__array_interface__
        return {
            "shape": self.shape,
            "typestr": interface["typestr"],
            "descr": interface["descr"],
            "stream": 1,
            "version": 3,
            "strides": interface["strides"],
            "data": (self.data.ptr, False),
        }

    def __dlpack_device__(self):
        return (2, self.device.id)  # kDLCUDA

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        """What this module's `from_dlpack` opens, and no library that reads the host's memory."""
        if dl_device is not None and dl_device[0] == 1:  # asked for on the host
            return self.get().__dlpack__(max_version=max_version)
        return Exported(self.copy() if copy else self)

    # Elements.

    def __getitem__(self, index):
        index = index_of(index)
        result = silently(operator.getitem, self.host, index)
        if isinstance(result, np.generic):  # a single element is a view too
            result = self.host[(*index, ...) if isinstance(index, tuple) else (index, ...)]
        made = wrapped(result, self)
        if made.base is not None:
            made.data = cuda.MemoryPointer(self.data.mem, made.host)  # a part has its own pointer
        return made

    def __setitem__(self, index, value):
        value = value if isinstance(value, np.generic) else operand(value)
        index = index_of(index)
        silently(operator.setitem, self.host, index, value)
        if any(isinstance(x, np.ndarray) for x in (index if type(index) is tuple else (index,))):
            # Threads write in any order: here the first of several for one place comes last.
            shape, value = self.host[index].shape, np.asarray(value)
            written = np.broadcast_to(value.reshape(value.shape[-len(shape) :]), shape)
            places = np.arange(self.size).reshape(self.shape)[index]
            self.host.flat[places.reshape(-1)[::-1]] = written.reshape(-1)[::-1]

    def fill(self, value):
        self.host.fill(value if isinstance(value, np.generic) else operand(value))

    def set(self, arr, stream=None):
        if type(arr) is not np.ndarray or arr.shape != self.shape or arr.dtype != self.dtype:
            raise ValueError("set: expected a NumPy array of the same shape and dtype")
        self.host[...] = arr

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        with self.device:
            return self.copy()

    def reshape(self, *shape, order="C", copy=None):
        return wrapped(silently(self.host.reshape, *shape, order=order), self)

    def transpose(self, *axes):
        return wrapped(silently(self.host.transpose, *axes), self)


class Exported:
    """In place of DLPack's capsule: an array on its way to another library."""

    def __init__(self, array):
        self.array = array


class Flags:
    """The flags that CuPy's arrays have; `writeable` is not among them."""

    def __init__(self, host):
        self.c_contiguous = host.flags.c_contiguous
        self.f_contiguous = host.flags.f_contiguous
        self.owndata = host.flags.owndata

    def __getitem__(self, name):
        return {
            "C_CONTIGUOUS": self.c_contiguous,
            "F_CONTIGUOUS": self.f_contiguous,
            "OWNDATA": self.owndata,
        }[name]


# --- opening and closing -------------------------------------------------------------------------


def address(host):
    """Where a NumPy array's first element is."""
    return host.__array_interface__["data"][0]


def root(host):
    """The NumPy array that owns the memory."""
    while getattr(host, "base", None) is not None:
        host = host.base
    return host


def wrapped(result, *parents):
    """What a NumPy function gave, as the double gives it: arrays always, views as views.

    parents: the arrays of the double that the function got.
    """
    if isinstance(result, tuple | list):
        return type(result)([wrapped(part, *parents) for part in result])
    if isinstance(result, np.generic | bool | int | float):
        result = np.asarray(result)
    if type(result) is not np.ndarray:
        return result
    for parent in parents:
        if parent.host is result:
            return parent
    owner = root(result)
    for parent in parents:
        if parent.data.mem.owner is owner:
            return parent._view(result)
    cuda.check_captured(result)
    made = object.__new__(ndarray)
    made._own(result)
    return made


def silently(function, *args, **options):
    """Call a NumPy function as a GPU computes: without a warning of overflow or of 1/0.

    The errors are of CuPy's types, but not in NumPy's words: nobody is to rely on these.
    While a graph is captured, what is computed now gives shapes only, and is noted down to be
    computed again, into the same memory, whenever the graph is launched.
    """
    result = _refused_as_on_a_device(function, *args, **options)
    if cuda.get_current_stream().is_capturing():
        result = np.asarray(result) if isinstance(result, np.generic) else result
        writes = options.get("out") is not None or function is operator.setitem
        if not writes and (type(result) is not np.ndarray or _views(result, args)):
            return result
        cuda.capture(_again, function, args, options, result)
        cuda.note(result)
    return result


def _views(result, args):
    """Whether a result lies in the memory of an argument, so that nothing was computed."""
    return any(np.may_share_memory(result, x) for x in args if isinstance(x, np.ndarray))


@np.errstate(all="ignore")
def _again(function, args, options, result):
    made = function(*args, **options)
    if type(result) is np.ndarray and made is not result:
        np.copyto(result, made)


@np.errstate(all="ignore")
def _refused_as_on_a_device(function, *args, **options):
    try:
        return function(*args, **options)
    except np.exceptions.AxisError:
        raise
    except (IndexError, TypeError, ValueError) as error:
        kinds = [kind for kind in (IndexError, TypeError, ValueError) if isinstance(error, kind)]
        raise kinds[0](f"the device refuses {function.__name__}") from None


def array_of(value):
    """The NumPy array in an array of the double; TypeError for anything else."""
    if type(value) is not ndarray:
        raise TypeError(f"Unsupported type {type(value)}: expected an array of the device")
    here = cuda.get_device_id()
    if value.data.mem.device_id != here:
        raise ValueError(
            f"The device where the array resides ({value.data.mem.device_id}) is different from "
            f"the current device ({here})."
        )
    return value.host


def operand(value):
    """An array of the device, opened, or a Python number."""
    if isinstance(value, np.generic):
        raise TypeError(
            f"{type(value)} as an operand: CuPy takes it, but a NumPy scalar has a dtype and may "
            "widen the result; pass a Python number"
        )
    return value if isinstance(value, bool | int | float) else array_of(value)


def plain(value):
    """An argument that is no array: a size, an axis, a dtype."""
    for part in value if isinstance(value, tuple | list) else (value,):
        if isinstance(part, ndarray | np.ndarray):
            raise TypeError(f"Unsupported type {type(part)}: expected no array here")
    return value


def index_of(index):
    """An index: CuPy takes slices, numbers, lists and its own arrays."""
    if isinstance(index, tuple):
        if len([part for part in index if getattr(part, "dtype", None) == np.bool_]) > 1:
            raise ValueError("CuPy takes one mask in an index, not several")
        return tuple(map(index_of, index))
    if isinstance(index, np.ndarray):
        raise TypeError("an index that is a NumPy array: a hidden transfer to the device")
    if isinstance(index, float):
        return int(index)  # where NumPy raises IndexError
    return array_of(index) if isinstance(index, ndarray) else index


def _kind(kind):
    """How to sort. CuPy's one way is stable."""
    if kind not in (None, "stable"):
        raise ValueError(f"kind can only be None or 'stable', not {kind!r}")
    return "stable"


def arrays_in(values):
    """The arrays of the double among some arguments."""
    for value in values:
        if isinstance(value, tuple | list):
            yield from arrays_in(value)
        elif type(value) is ndarray:
            yield value


_OPENING = {
    "Array": lambda value: None if value is None else array_of(value),
    "Arrays": lambda values: [array_of(value) for value in values],
    "Operand": lambda value: None if value is None else operand(value),
    "Kind": lambda value: _kind(value),
}


_OF_AN_AXIS = ("argmax", "argmin", "cumsum")  # for which a single number has none, unlike in NumPy


def borrowed(stub):
    """NumPy's function, or method of an array, of the stub's name, with the stub's parameters only.

    A parameter's annotation says what may be given: Array, Arrays, Operand (an array or a Python
    number), or no array where there is none.
    """
    signature = inspect.signature(stub)
    opening = {
        name: _OPENING.get(parameter.annotation, plain)
        for name, parameter in signature.parameters.items()
    }
    required = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.default is parameter.empty
    ]
    is_method = required[:1] == ["self"]
    function = getattr(np.ndarray if is_method else np, stub.__name__)

    @functools.wraps(stub)
    def run(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        opened = {name: opening[name](value) for name, value in given.items()}
        first = [opened.pop(name) for name in required]
        if stub.__name__ in _OF_AN_AXIS and opened.get("axis") is not None and not first[0].ndim:
            raise np.exceptions.AxisError(opened["axis"], 0)
        result = silently(function, *first, **opened)
        return wrapped(result, *arrays_in(given.values()))

    return run


# --- methods and operators -----------------------------------------------------------------------


class _Borrowed:
    """The methods that are NumPy's behind CuPy's parameters."""

    # fmt: off
    def all(self: Array, axis=None, out: Array = None, keepdims=False): ...
    def any(self: Array, axis=None, out: Array = None, keepdims=False): ...
    def argmax(self: Array, axis=None, out: Array = None, dtype=None, keepdims=False): ...
    def argmin(self: Array, axis=None, out: Array = None, dtype=None, keepdims=False): ...
    def argsort(self: Array, axis=-1, kind: Kind = None): ...
    def astype(self: Array, dtype, order="K", casting=None, subok=None, copy=True): ...
    def clip(self: Array, min: Operand = None, max: Operand = None, out: Array = None): ...
    def copy(self: Array, order="C"): ...
    def cumsum(self: Array, axis=None, dtype=None, out: Array = None): ...
    def max(self: Array, axis=None, out: Array = None, keepdims=False): ...
    def mean(self: Array, axis=None, dtype=None, out: Array = None, keepdims=False): ...
    def min(self: Array, axis=None, out: Array = None, keepdims=False): ...
    def nonzero(self: Array): ...
    def prod(self: Array, axis=None, dtype=None, out: Array = None, keepdims=False): ...
    def ravel(self: Array, order="C"): ...
    def repeat(self: Array, repeats, axis=None): ...
    def squeeze(self: Array, axis=None): ...
    def sum(self: Array, axis=None, dtype=None, out: Array = None, keepdims=False): ...
    def swapaxes(self: Array, axis1, axis2): ...
    def take(self: Array, indices: Array, axis=None, out: Array = None): ...
    def view(self: Array, dtype=None): ...
    # fmt: on


for _name, _stub in vars(_Borrowed).items():
    if _name[0] != "_":
        setattr(ndarray, _name, borrowed(_stub))


def computed(ufunc, *values, **options):
    """A ufunc of arrays of the device and Python numbers: into new memory in C order, or `out`."""
    result = silently(ufunc, *map(operand, values), order="C", **options)
    return wrapped(result, *arrays_in(values))


def _binary(ufunc, turned=False):
    """An operator of two operands, which leaves a Tensor on its right to that Tensor."""

    def method(x, y):
        if type(y) is not ndarray and getattr(y, "__array_ufunc__", y) is None:
            return NotImplemented
        return computed(ufunc, y, x) if turned else computed(ufunc, x, y)

    return method


def _in_place(ufunc):
    return lambda x, y: computed(ufunc, x, y, out=x.host)


for _name, _ufunc in {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.true_divide,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "pow": np.power,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}.items():
    setattr(ndarray, f"__{_name}__", _binary(_ufunc))
    setattr(ndarray, f"__r{_name}__", _binary(_ufunc, turned=True))
    setattr(ndarray, f"__i{_name}__", _in_place(_ufunc))
for _name, _ufunc in {
    "matmul": np.matmul,
    "lt": np.less,
    "le": np.less_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}.items():
    setattr(ndarray, f"__{_name}__", _binary(_ufunc))
for _name, _ufunc in {
    "neg": np.negative,
    "pos": np.positive,
    "abs": np.absolute,
    "invert": np.invert,
}.items():
    setattr(ndarray, f"__{_name}__", lambda x, ufunc=_ufunc: computed(ufunc, x))
