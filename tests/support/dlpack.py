"""A small library with arrays on a GPU: exports and takes DLPack capsules, as torch and CuPy do.

The memory is the fake driver's (fake_cuda.c), so its "GPU" can be read from here.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from .fake_cuda import FakeCuda

CUDA = 2
READ_ONLY = 1
# (code, bits) of DLPack by NumPy dtype; uint16 holds the bits of bfloat16.
TYPES = {
    "float32": (2, 32),
    "float16": (2, 16),
    "float64": (2, 64),
    "int64": (0, 64),
    "bool": (6, 8),
    "uint16": (4, 16),
    "complex64": (5, 64),
}


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Managed(ctypes.Structure):
    _fields_ = [("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", DELETER)]


class ManagedVersioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", DELETER),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    ]


_exported: dict[int, Any] = {}  # until their deleter is called
KINDS = {b"dltensor": Managed, b"dltensor_versioned": ManagedVersioned}
_api = ctypes.pythonapi
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_api.PyCapsule_GetName.restype = ctypes.c_char_p
_api.PyCapsule_GetName.argtypes = [ctypes.py_object]
_api.PyCapsule_GetPointer.restype = ctypes.c_void_p
_api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_api.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]


class GpuArray:
    """An array of that library.

    Attributes:
        asked: Keyword arguments of each export.
        deleted: How many exports have been given back.
    """

    def __init__(
        self,
        fake: FakeCuda,
        values: np.ndarray,
        *,
        device: int = 0,
        is_old: bool = False,
        is_read_only: bool = False,
        offset: int = 0,
        major: int = 1,
    ) -> None:
        """`values` may be a strided view. is_old: knows no max_version. offset: bytes that the
        first element lies behind the start of the memory."""
        self._fake, self._device, self._major = fake, device, major
        self._is_old, self._is_read_only, self._offset = is_old, is_read_only, offset
        base = values if values.base is None else values.base
        self.memory = fake.give(device, base.nbytes + offset)
        ctypes.memmove(self.memory + offset, base.ctypes.data, base.nbytes)
        self._start = values.ctypes.data - base.ctypes.data
        self._shape, self._type = values.shape, TYPES[str(values.dtype)]
        self._strides = [stride // values.itemsize for stride in values.strides]
        self.asked: list[dict[str, Any]] = []
        self.deleted = 0

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, self._device

    def __dlpack__(self, **asked: Any) -> Any:
        if self._is_old and "max_version" in asked:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        self.asked.append(asked)
        kind = Managed if self._is_old else ManagedVersioned
        managed = kind()
        rank = len(self._shape)
        shape, strides = (ctypes.c_int64 * rank)(*self._shape), (ctypes.c_int64 * rank)()
        strides[:] = self._strides
        managed.tensor = Tensor(
            self.memory,
            CUDA,
            self._device,
            rank,
            *self._type,
            1,
            shape,
            strides,
            self._offset + self._start,
        )
        if kind is ManagedVersioned:
            managed.major, managed.flags = self._major, READ_ONLY * self._is_read_only
        managed.deleter = DELETER(self._delete)
        address = ctypes.addressof(managed)
        _exported[address] = (self, managed, shape, strides)
        name = b"dltensor" if self._is_old else b"dltensor_versioned"
        return _api.PyCapsule_New(address, name, None)

    def _delete(self, address: int) -> None:
        self.deleted += 1
        del _exported[address]

    def __del__(self) -> None:
        self._fake.take_back(self.memory)


class Taken:
    """What this library makes of somebody's array: its facts, and its memory as NumPy."""

    def __init__(self, array: Any, *, stream: int | None = None, **options: Any) -> None:
        assert array.__dlpack_device__()[0] == CUDA
        capsule = array.__dlpack__(stream=stream, **options)
        self.name = _api.PyCapsule_GetName(capsule)
        address = _api.PyCapsule_GetPointer(capsule, self.name)
        _api.PyCapsule_SetName(capsule, b"used_" + self.name)
        self._managed = KINDS[self.name].from_address(address)
        self._address = address
        tensor = self._managed.tensor
        rank = tensor.ndim
        self.device = (tensor.device_type, tensor.device_id)
        self.shape, self.strides = tuple(tensor.shape[:rank]), tuple(tensor.strides[:rank])
        dtype = next(k for k, v in TYPES.items() if v == (tensor.code, tensor.bits))
        self.data = tensor.data + tensor.byte_offset
        count = int(np.prod(self.shape)) * np.dtype(dtype).itemsize
        raw = (ctypes.c_char * count).from_address(self.data)
        self.values = np.frombuffer(raw, dtype).reshape(self.shape)

    @property
    def is_read_only(self) -> bool:
        return bool(self._managed.flags & READ_ONLY)

    def free(self) -> None:
        self._managed.deleter(self._address)
