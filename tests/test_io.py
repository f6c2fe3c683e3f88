"""Files: exact round trips, refusals that name file and cause, saving that survives a kill."""

from __future__ import annotations

import json
import os
import pickle
import random as python_random
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from safetensors.numpy import load_file, save_file

import tinygrad_rnn as tg
from tinygrad_rnn import creation, nn, optim, random
from tinygrad_rnn.io import (
    FileFormatError,
    load,
    load_checkpoint,
    load_npz,
    save,
    save_checkpoint,
    save_npz,
)
from tinygrad_rnn.tensor import Tensor
from tinygrad_rnn.utils.data import BPTTBatcher, DataLoader

pytestmark = pytest.mark.usefixtures("device")

DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
DTYPES += ["float16", "float32", "float64"]


def assert_same(mine, other):
    """Equal types, dtypes, keys, order and bits, at every depth."""
    assert type(mine) is type(other)
    if isinstance(mine, Tensor):
        assert mine.device == other.device
        mine, other = mine.numpy(), other.numpy()
    if isinstance(mine, np.ndarray | np.generic):
        assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
        assert mine.tobytes() == other.tobytes()
    elif isinstance(mine, dict):
        assert list(map(repr, mine)) == list(map(repr, other))
        for key in mine:
            assert_same(mine[key], other[key])
    elif isinstance(mine, list | tuple):
        assert len(mine) == len(other)
        for left, right in zip(mine, other, strict=True):
            assert_same(left, right)
    else:
        assert mine == other or (mine != mine and other != other)
        assert type(mine) is int or repr(mine) == repr(other)  # tells 0.0 from -0.0


def files_in(folder):
    return sorted(os.listdir(folder))


# Round trips

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**200), 2**200)
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | arrays_of.arrays(st.sampled_from(DTYPES), arrays_of.array_shapes(min_dims=0, min_side=0))
    | arrays_of.arrays(st.sampled_from(DTYPES), ()).map(lambda array: array[()])
    | arrays_of.arrays("float32", arrays_of.array_shapes(min_dims=0)).map(Tensor)
)
keys = st.text(st.characters(), max_size=3) | st.integers()
structures = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=8,
)


@given(value=structures)
@settings(deadline=None, max_examples=150)
def test_any_structure_comes_back_exactly(value, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    if type(value) in (dict, OrderedDict) and all(
        type(key) is str and isinstance(item, np.ndarray | Tensor) for key, item in value.items()
    ):
        value = type(value)((key, Tensor(np.asarray(item))) for key, item in value.items())
    save({"value": [value], "ends": 1}, path)
    assert_same(load(path), {"value": [value], "ends": 1})
    save(value, path)
    if not isinstance(value, dict):
        assert_same(load(path), value)


def test_awkward_values(tmp_path):
    nan_with_payload = np.array([0x7FF8000000000123], np.uint64).view(np.float64)
    value = {
        "numbers": [0.0, -0.0, float("inf"), -float("inf"), 5e-324, 2**63, -(2**64), 10**5000],
        "text": ["", "한글", "\0", "\ud800", '{"tensor": "x"}'],
        "looks like a description": {"tensor": "x", "tuple": [1]},
        "both": {1: "int", "1": "string"},
        "nan": [float("nan"), nan_with_payload, nan_with_payload[0]],
        "empty": [(), [], {}, OrderedDict()],
        "names that meet": [
            {"a": {"b": np.zeros(1)}, "a.b": np.ones(1)},
            {"__metadata__": np.ones(2)},
        ],
        "big-endian": np.arange(3, dtype="<i4"),
        3: Tensor(np.zeros((0, 3), np.float16)),
    }
    save(value, tmp_path / "file")
    assert_same(load(tmp_path / "file"), value)
    save({"__metadata__": np.ones(2), "a": np.zeros(())}, tmp_path / "file")
    assert load(tmp_path / "file")["__metadata__"].tolist() == [1.0, 1.0]


def test_arrays_of_any_layout(tmp_path):
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    value = [
        base.T,
        base[::2, ::-3],
        np.asfortranarray(base),
        np.broadcast_to(base[0], (3, 6)),
        base[1:1],
        np.float32(1.5),
        np.array(2.5),
    ]
    save(value, tmp_path / "file")
    assert_same(load(tmp_path / "file"), value)
    save(np.arange(3, dtype=">i4"), tmp_path / "file")
    assert_same(load(tmp_path / "file"), np.arange(3, dtype="<i4"))


def test_what_is_loaded_can_be_written_to(tmp_path):
    shared = np.ones(3)
    save({"a": [shared, Tensor(shared)]}, tmp_path / "file")
    array, tensor = load(tmp_path / "file")["a"]
    array += 1
    tensor.add_(2)
    assert (array.tolist(), tensor.tolist(), shared.tolist()) == ([2.0] * 3, [3.0] * 3, [1.0] * 3)


def test_a_tensor_comes_back_detached(tmp_path):
    weight = creation.tensor([1.0, 2.0], requires_grad=True)
    save([weight, weight * 2], tmp_path / "file")
    for tensor in load(tmp_path / "file"):
        assert type(tensor) is Tensor
        assert not tensor.requires_grad


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_flat_dict_is_a_plain_safetensors_file(tmp_path, dtype):
    weights = OrderedDict(
        z=Tensor(np.arange(6).reshape(2, 3).astype(dtype)), a=np.array(1).astype(dtype)
    )
    save(weights, tmp_path / "ours")
    read_by_the_library = load_file(tmp_path / "ours")
    assert set(read_by_the_library) == {"z", "a"}
    assert_same(read_by_the_library["z"], weights["z"].numpy())
    mine = load(tmp_path / "ours")
    assert type(mine) is OrderedDict
    assert list(mine) == ["z", "a"]  # the file is sorted by name, the dict is not
    assert_same(mine["a"], Tensor(weights["a"]))
    save_file(read_by_the_library, tmp_path / "theirs", metadata={"format": "pt"})
    theirs = load(tmp_path / "theirs")
    assert_same(theirs["z"], mine["z"])
    assert_same(theirs["a"], mine["a"])


def test_names_in_the_file_are_paths(tmp_path):
    save({"model": {"weight": np.ones(2)}, "history": [np.ones(3)]}, tmp_path / "file")
    assert set(load_file(tmp_path / "file")) == {"model.weight", "history.0"}


# What cannot be saved


class Unknown:
    pass


class Stateful:
    def state_dict(self):
        return {}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"optimizer": {"state": {0: {"foo": len}}}}, r"optimizer\.state\[0\]\.foo: a function"),
        ({"a": [1, (2, {3})]}, r"a\[1\]\[1\]: a set cannot be saved; convert"),
        ([Stateful()], r"\[0\]: a Stateful cannot be saved; save its state_dict\(\)"),
        ({"two words": Unknown()}, r"\['two words'\]: a Unknown"),
        (Unknown, r"the value: the class Unknown"),
        ({"a": defaultdict(dict)}, "a: a defaultdict"),
        ({"a": 1j}, "a: a complex"),
        ({"a": b"x"}, "a: a bytes"),
        ({"a": {(1, 2): 3}}, r"a: the key \(1, 2\)"),
        ({True: 3}, "the value: the key True"),
        ({"a": np.array([None])}, "a: an array of object"),
        ({"a": np.array(["x"])}, "a: an array of <U1"),
        ({"a": np.zeros(2, np.complex128)}, "a: an array of complex128"),
        ({"a": np.ma.masked_array([1.0], [True])}, "a: a MaskedArray"),
    ],
)
def test_refusals_name_the_path_and_write_nothing(tmp_path, value, message):
    with pytest.raises(TypeError, match=f"^save: {message}"):
        save(value, tmp_path / "file")
    assert files_in(tmp_path) == []


def test_a_structure_that_contains_itself(tmp_path):
    value = {"a": []}
    value["a"].append(value)
    with pytest.raises(ValueError, match="contain itself"):
        save(value, tmp_path / "file")


def test_a_header_that_could_not_be_read_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr("tinygrad_rnn.io.serialization.LARGEST_HEADER", 1000)
    with pytest.raises(ValueError, match="keep long lists of numbers as arrays"):
        save(list(range(1000)), tmp_path / "file")
    assert files_in(tmp_path) == []


def test_paths_that_cannot_be_written(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"save: .*nowhere/file: the folder .* does not exist"
    ):
        save([], tmp_path / "nowhere" / "file")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        save([], tmp_path)
    with pytest.raises(TypeError, match=r"expected a file name, got dict; use save\(obj, path\)"):
        save("file", {})


# Replacing in one step


class Fault(OSError):
    pass


@pytest.mark.parametrize("stage", ["write", "os.fsync", "os.replace"])
@pytest.mark.parametrize("saver", [save, save_npz])
@pytest.mark.parametrize("fault", [Fault, KeyboardInterrupt])
def test_a_fault_while_saving_leaves_the_old_file(tmp_path, monkeypatch, stage, saver, fault):
    path = tmp_path / "file"
    saver({"w": np.zeros(3)}, path)
    old = path.read_bytes()

    def fail(*arguments):
        raise fault("no space left")

    if stage == "write":

        class HalfWritten:
            """Takes ten bytes of what is written, then no more."""

            def __init__(self, file):
                self.file = file

            def __getattr__(self, name):
                return getattr(self.file, name)

            def __enter__(self):
                return self

            def __exit__(self, *exception):
                self.file.close()

            def write(self, content):
                self.file.write(content[:10])
                fail()

        monkeypatch.setattr(
            "tinygrad_rnn.io.files.open",
            lambda *arguments: HalfWritten(open(*arguments)),  # noqa: SIM115
            raising=False,
        )
    else:
        monkeypatch.setattr(stage, fail)
    with pytest.raises(fault, match="no space left"):
        saver({"w": np.ones(3)}, path)
    monkeypatch.undo()
    assert files_in(tmp_path) == ["file"]
    assert path.read_bytes() == old
    saver({"w": np.ones(3)}, path)
    assert path.read_bytes() != old


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real" / "file")
    save([1], link)
    assert link.is_symlink()
    assert load(tmp_path / "real" / "file") == [1]


@pytest.mark.skipif(os.name != "posix", reason="needs umask")
def test_the_new_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "other").write_bytes(b"")
    save([1], tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


SAVE_FOR_EVER = """
    import sys
    import numpy as np
    from tinygrad_rnn.io import save
    step = 0
    while True:
        step += 1
        save({"step": step, "weights": np.full(300_000, step)}, sys.argv[1])
        if step == 3:
            print("saving", flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_kill_while_saving_leaves_a_whole_file(tmp_path):
    path = tmp_path / "file"
    for delay in (0.0, 0.003, 0.0071):  # seconds after the third save
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SAVE_FOR_EVER), str(path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        value = load(path)
        assert value["step"] >= 3
        assert value["weights"].shape == (300_000,)
        assert (value["weights"] == value["step"]).all()


# Files that cannot be loaded


def written(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    return path


def test_missing_file(tmp_path):
    for reader in (load, load_npz):
        with pytest.raises(FileNotFoundError, match=r"load.*missing: there is no such file"):
            reader(tmp_path / "missing")


def zipped(tmp_path):
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("data.pkl", b"x" * 50)
    return (tmp_path / "zip").read_bytes()


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "is empty"),
        (b"hi", "is a text file"),
        ("안녕하세요 ".encode() * 100, "is a text file"),
        (b"\x80", "is truncated"),
        (bytes(range(128, 256)) * 3, "is not a safetensors file"),
        (pickle.dumps({"a": 1}, 2), "is a pickle, which is never loaded"),
        (pickle.dumps({"a": 1}, 5), "is a pickle, which is never loaded"),
        (zipped, "is a zip archive, such as an .npz file or a file of torch.save"),
        (b"\x93NUMPY\x01\x00v\x00{'descr'", "is a single .npy array"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "is an HDF5 file"),
        (b'{"a": 1}          ', "is a text file"),
    ],
)
def test_foreign_files(tmp_path, content, cause):
    path = written(tmp_path, content if isinstance(content, bytes) else content(tmp_path))
    with pytest.raises(FileFormatError, match=rf"load: .*file {cause}"):
        load(path)


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(FileFormatError, match="is a folder"):
        load(tmp_path)


def test_a_pickle_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    path = tmp_path / "bomb"
    for reader in (load, load_npz):
        path.write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(FileFormatError, match="pickle"):
            reader(path)
    np.savez(tmp_path / "bomb.npz", a=np.array([Bomb()], dtype=object))
    with pytest.raises(FileFormatError, match="plain arrays"):
        load_npz(tmp_path / "bomb.npz")
    assert not (tmp_path / "exploded").exists()


def test_truncation_at_every_byte(tmp_path):
    save({"a": np.arange(7), "b": [1, 2.5, "x"]}, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for size in range(1, len(whole)):
        path = written(tmp_path, whole[:size])
        with pytest.raises(FileFormatError, match=f"file is truncated: it has {size} "):
            load(path)


def test_damage_is_refused_or_harmless(tmp_path):
    """No flipped byte leads to another exception than FileFormatError."""
    save({"a": np.arange(3), "b": [1, 2.5, {"c": (None, float("nan"))}]}, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    refused = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x15
        try:
            load(written(tmp_path, bytes(damaged)))
        except FileFormatError:
            refused += 1
    assert refused > len(whole) / 3


def file_with_metadata(tmp_path, text):
    save_file({"a": np.ones(2)}, tmp_path / "file", metadata={"tinygrad_rnn": text})
    return tmp_path / "file"


@pytest.mark.parametrize(
    "description",
    [
        {"format": 1},
        {"format": 1, "value": {"tensor": "absent"}},
        {"format": 1, "value": {"system": "rm"}},
        {"format": 1, "value": {"tuple": 3}},
        {"format": 1, "value": {"int": "zz"}},
        {"format": 1, "value": {"float": "00"}},
        {"format": 1, "value": {"dict": [[1]]}},
        {"format": 1, "value": {}},
        [],
    ],
)
def test_a_damaged_description(tmp_path, description):
    with pytest.raises(FileFormatError, match="description of its structure is damaged"):
        load(file_with_metadata(tmp_path, json.dumps(description)))


def test_a_description_too_deep_or_from_the_future(tmp_path):
    with pytest.raises(FileFormatError, match=r"load: .*file"):
        load(file_with_metadata(tmp_path, "[" * 100_000 + "]" * 100_000))
    deep = '{"format": 1, "value": ' + "[" * 900 + "]" * 900 + "}"
    with pytest.raises(FileFormatError, match=r"load: .*file"):
        load(file_with_metadata(tmp_path, deep))
    with pytest.raises(FileFormatError, match="has format 2, newer"):
        load(file_with_metadata(tmp_path, '{"format": 2, "value": 1}'))


def test_a_dtype_that_numpy_lacks(tmp_path):
    header = b'{"w":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}   '
    path = written(tmp_path, len(header).to_bytes(8, "little") + header + b"ab")
    with pytest.raises(FileFormatError, match="file holds an array of dtype BF16, which no Tensor"):
        load(path)
    save_file({"a": np.zeros(2, np.complex64)}, path)
    with pytest.raises(FileFormatError, match="file holds an array of dtype complex64"):
        load(path)


def test_devices(tmp_path):
    save({"a": np.ones(2)}, tmp_path / "file")
    assert load(tmp_path / "file", "cpu")["a"].device == "cpu"
    with pytest.raises(RuntimeError, match=r"load: .*file cannot be put on device 'tpu'"):
        load(tmp_path / "file", map_location="tpu")
    with pytest.raises(TypeError, match="map_location must be a device, got dict"):
        load(tmp_path / "file", map_location={})


def test_a_machine_without_a_gpu_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # import cupy then fails
    save({"a": np.ones(2)}, tmp_path / "file")
    with pytest.raises(RuntimeError, match=r"load: .*file cannot be put on device 'cuda'.*CuPy"):
        load(tmp_path / "file", map_location="cuda")


# npz


@pytest.mark.parametrize("dtype", DTYPES)
def test_npz_round_trip_and_exchange_with_numpy(tmp_path, dtype):
    path = tmp_path / "file.npz"
    value = np.arange(6).reshape(2, 3).astype(dtype)
    save_npz({"file": value.T, "layer.weight": Tensor(value), "zero": np.array(1, dtype)}, path)
    mine = load_npz(path)
    assert list(mine) == ["file", "layer.weight", "zero"]
    assert_same(mine["file"], Tensor(np.ascontiguousarray(value.T)))
    assert_same(mine["layer.weight"], Tensor(value))
    with np.load(path, allow_pickle=False) as archive:
        assert_same(archive["layer.weight"], value)
    np.savez(path, a=value)
    assert_same(load_npz(path)["a"], Tensor(value))
    save_npz({}, path)
    assert load_npz(path) == {}


def test_npz_refusals(tmp_path):
    path = tmp_path / "file"
    for value in ({"a": [1]}, {"a": {}}, {1: np.ones(2)}):
        with pytest.raises(TypeError, match=r"save_npz: ('a'|1): expected names"):
            save_npz(value, path)
    with pytest.raises(TypeError, match="save_npz: a: an array of object"):
        save_npz({"a": np.array([None])}, path)
    assert files_in(tmp_path) == []
    for content, cause in [
        (b"", "is empty"),
        (b"hello", "is a text file, not an .npz file"),
        (b"PK\x03\x04" + bytes(50), "cannot be read"),
    ]:
        with pytest.raises(FileFormatError, match=f"load_npz: .*file {cause}"):
            load_npz(written(tmp_path, content))
    save_npz({"a": np.arange(50.0)}, path)
    whole = path.read_bytes()
    for size in range(1, len(whole), 7):
        with pytest.raises(FileFormatError, match=r"load_npz: .*file"):
            load_npz(written(tmp_path, whole[:size]))


# Checkpoints


class Weights:
    """The least that has a state: named tensors, copied on load, checked for nothing."""

    def __init__(self, **arrays):
        self.tensors = {name: creation.tensor(array) for name, array in arrays.items()}

    def state_dict(self):
        return dict(self.tensors)

    def load_state_dict(self, state_dict):
        for name, tensor in self.tensors.items():
            tensor.copy_(state_dict[name])


class Momentum:
    """An optimizer-like state that refuses, half-way through loading, what does not fit."""

    def __init__(self, groups=1):
        self.steps = 0
        self.state = {}
        self.param_groups = [{"lr": 0.1, "betas": (0.9, 0.999)} for _ in range(groups)]

    def state_dict(self):
        return {"steps": self.steps, "state": self.state, "param_groups": self.param_groups}

    def load_state_dict(self, state_dict):
        self.steps = state_dict["steps"]
        if len(state_dict["param_groups"]) != len(self.param_groups):
            raise ValueError("another number of parameter groups")
        self.state = state_dict["state"]
        self.param_groups = state_dict["param_groups"]


def weights():
    return Weights(w=np.arange(6.0).reshape(2, 3), b=[1.0, 2.0])


def draws():
    return (
        creation.randn(3).tolist(),
        python_random.random(),
        np.random.random(),  # noqa: NPY002 - the global generator is what is tested
    )


def test_checkpoint_brings_everything_back(tmp_path):
    path = tmp_path / "run"
    random.manual_seed(3)
    model, optimizer = weights(), Momentum()
    optimizer.state[0] = {"exp_avg": creation.ones(2), "step": 7}
    loader = DataLoader(range(10), 3, shuffle=True)
    batches = iter(loader)
    next(batches)
    state = (creation.ones(2), creation.zeros(2))
    save_checkpoint(
        path, model=model, optimizer=optimizer, loader=loader, extra={"step": 3, "state": state}
    )
    expected = [batch.tolist() for batch in batches], draws()

    random.manual_seed(4)
    python_random.seed(5)
    np.random.seed(6)  # noqa: NPY002
    other_model, other_optimizer = Weights(w=np.zeros((2, 3)), b=[0.0, 0.0]), Momentum()
    other_loader = DataLoader(range(10), 3, shuffle=True)
    extra = load_checkpoint(path, model=other_model, optimizer=other_optimizer, loader=other_loader)
    assert_same(other_model.state_dict(), model.state_dict())
    assert_same(other_optimizer.state_dict(), optimizer.state_dict())
    assert_same(extra, {"step": 3, "state": state})
    assert ([batch.tolist() for batch in other_loader], draws()) == expected


def test_extra_tensors_come_back_where_the_model_is(tmp_path):
    """So a run that was saved on a GPU goes on without one."""
    save_checkpoint(tmp_path / "run", model=weights(), extra=creation.ones(2))
    model = weights()
    assert load_checkpoint(tmp_path / "run", model=model).device == model.tensors["w"].device
    model.tensors = {name: x.cpu() for name, x in model.tensors.items()}
    assert load_checkpoint(tmp_path / "run", model=model).device == "cpu"


def test_checkpoint_for_sampling_only(tmp_path):
    path = tmp_path / "run"
    save_checkpoint(path, model=weights(), optimizer=Momentum())
    random.manual_seed(1)
    expected = creation.randn(2).tolist()
    random.manual_seed(1)
    model = Weights(w=np.zeros((2, 3)), b=[0.0, 0.0])
    assert load_checkpoint(path, model=model, rng=False) is None
    assert_same(model.state_dict(), weights().state_dict())
    assert creation.randn(2).tolist() == expected


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (lambda: {"model": Weights(w=np.zeros((3, 2)), b=[0.0, 0.0])}, r"w is \(2, 3\).*\(3, 2\)"),
        (lambda: {"model": Weights(w=np.zeros((2, 3)))}, "b is not in the model"),
        (
            lambda: {"model": Weights(w=np.zeros((2, 3)), b=[0.0, 0.0], c=[0.0])},
            "c is not in the checkpoint",
        ),
        (
            lambda: {"model": Weights(w=np.zeros((2, 3)), b=np.zeros(2, np.float64) + 0j.real)},
            "b is .*float32 in the checkpoint and .*float64 in the model",
        ),
        (
            lambda: {"model": Weights(w=np.ones((2, 3)), b=[0.0, 0.0]), "optimizer": weights()},
            "state of a Momentum as its optimizer, but the optimizer given is a Weights",
        ),
        (
            lambda: {
                "model": Weights(w=np.ones((2, 3)), b=[0.0, 0.0]),
                "scheduler": Momentum(),
            },
            "holds no scheduler; it holds: model, optimizer, loader",
        ),
        (
            lambda: {"model": Weights(w=np.ones((2, 3)), b=[0.0, 0.0]), "optimizer": Momentum(2)},
            "another number of parameter groups",
        ),
        (
            lambda: {
                "model": Weights(w=np.ones((2, 3)), b=[0.0, 0.0]),
                "optimizer": Momentum(),
                "loader": BPTTBatcher(np.arange(30), 2, 7),
            },
            "seq_len=",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_changes_nothing(tmp_path, target, message):
    path = tmp_path / "run"
    optimizer = Momentum()
    optimizer.steps = 9
    save_checkpoint(
        path, model=weights(), optimizer=optimizer, loader=BPTTBatcher(np.arange(30), 2, 5)
    )
    parts = target()
    random.manual_seed(8)
    save({name: part.state_dict() for name, part in parts.items()}, tmp_path / "before")
    with pytest.raises((RuntimeError, ValueError), match=message):
        load_checkpoint(path, **parts)
    save({name: part.state_dict() for name, part in parts.items()}, tmp_path / "after")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()
    after = creation.randn(2).tolist()
    random.manual_seed(8)
    assert creation.randn(2).tolist() == after


def test_what_is_no_checkpoint(tmp_path):
    path = tmp_path / "file"
    save({"w": np.ones(2)}, path)
    with pytest.raises(
        FileFormatError, match=r"load_checkpoint: .*file is not a checkpoint; read weights"
    ):
        load_checkpoint(path, model=weights())
    save({"checkpoint": 2, "classes": {}}, path)
    with pytest.raises(FileFormatError, match=r"checkpoint of version 2; .* reads version 1"):
        load_checkpoint(path, model=weights())


def test_importing_io_does_not_import_safetensors():
    code = "import sys, tinygrad_rnn.io; print('safetensors' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"


# A real run


class Run:
    """A small recurrent model in training: dropout, a scheduler, a state carried across windows."""

    def __init__(self, seed):
        random.manual_seed(seed)
        self.model = nn.ModuleDict(
            {
                "embedding": nn.Embedding(7, 5),
                "step": nn.Linear(5 + 3, 3),
                "readout": nn.Linear(3, 7),
                "dropout": nn.Dropout(0.3),
            }
        )
        self.optimizer = optim.Adam(self.model.parameters(), lr=0.05)
        self.scheduler = optim.lr_scheduler.StepLR(self.optimizer, step_size=2, gamma=0.7)
        tokens = np.random.default_rng(0).integers(0, 7, 50)
        self.loader = BPTTBatcher(tokens, batch_size=3, seq_len=4)
        self.state = None

    @property
    def parts(self):
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "loader": self.loader,
        }

    def losses(self, count):
        found = []
        while len(found) < count:
            for inputs, targets in self.loader:
                found.append(self.step(inputs, targets))
                if len(found) == count:
                    break
        return found

    def step(self, inputs, targets):
        h = creation.zeros(3, 3) if self.loader.starts_epoch else self.state  # (B, H)
        loss = creation.zeros(())
        for x, y in zip(self.model["embedding"](inputs).unbind(0), targets.unbind(0), strict=True):
            x = self.model["dropout"](x)
            h = self.model["step"](tg.cat([x, h], 1)).tanh()
            loss = loss + nn.functional.cross_entropy(self.model["readout"](h), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.state = h.detach()
        return loss.item()


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path, stop):
    whole = Run(seed=0)
    expected = whole.losses(9)

    stopped = Run(seed=0)
    losses = stopped.losses(stop)
    save_checkpoint(tmp_path / "run", **stopped.parts, extra={"state": stopped.state})
    resumed = Run(seed=99)
    resumed.state = load_checkpoint(tmp_path / "run", **resumed.parts)["state"]
    losses += resumed.losses(9 - stop)

    assert losses == expected  # bit for bit
    assert expected[0] != expected[8]
    assert_same(resumed.model.state_dict(), whole.model.state_dict())
    assert_same(resumed.optimizer.state_dict(), whole.optimizer.state_dict())
    assert_same(resumed.scheduler.state_dict(), whole.scheduler.state_dict())
