"""Arrays on a GPU in and out by DLPack: a small library of such arrays over the fake driver."""

from __future__ import annotations

import gc
import os
import weakref
from types import ModuleType

import numpy as np
import pytest

import textopia_fast as tx
from tests.cuda.test_loop_cuda import TOLERANCE, denoisers
from tests.support.dlpack import GpuArray, Taken
from tests.support.fake_cuda import FakeCuda
from tests.support.networks import tanh_network
from tests.test_loop import CONFIG, contexts, program_of, random_latents
from textopia_fast import _core
from textopia_fast.errors import ForkedProcessError, InvalidRequestError, OutOfMemoryError
from textopia_fast.samplers import from_config, step_by_step, trace_plan

COPIES_TO_HOST = "cuMemcpyDtoHAsync_v2"
COPIES_TO_DEVICE = "cuMemcpyHtoDAsync_v2"
COPIES_ON_DEVICE = "cuMemcpyDtoDAsync_v2"


@pytest.fixture
def fake() -> FakeCuda:
    return FakeCuda()


def run(denoiser: tx.Denoiser, x: object, positive: object, negative: object, **options: object):
    return tx.sample(
        denoiser,
        x,
        program_of("dpmpp_2m", 5),
        {"context": positive},
        {"context": negative},
        guidance=3.0,
        **options,
    )


def sizes(fake: FakeCuda, name: str) -> list[int]:
    return [int(line.split(" ")[1]) for line in fake.calls() if line.startswith(name)]


def test_start_conditioning_and_sample_stay_on_the_gpu(fake):
    x = random_latents(2)
    positive, negative = contexts(2)
    on_cpu, on_gpu = denoisers(fake)
    wanted = run(on_cpu, x, positive, negative)
    given = [GpuArray(fake, values) for values in (x, positive, negative)]
    run(on_gpu, *given)
    fake.clear()
    result = run(on_gpu, *given)
    assert isinstance(result, tx.DeviceArray)
    np.testing.assert_allclose(
        result.numpy(), wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max()
    )
    # To the device go the noise levels and the mark of a bad step; back comes that mark, and then
    # what numpy() asked for.
    assert sizes(fake, COPIES_TO_DEVICE) == [4, 5 * 256]
    assert sizes(fake, COPIES_TO_HOST) == [4, x.nbytes]
    assert sizes(fake, COPIES_ON_DEVICE).count(x.nbytes) == 2  # the start, the sample
    for array in given:  # the library was told our stream, and has its memory back
        assert array.asked[-1] == {"stream": on_gpu.gpu.stream, "max_version": (1, 0)}
        assert array.deleted == 2


@pytest.mark.parametrize("images_per_run", [None, 1, 2])
@pytest.mark.parametrize("which", ["positive", "negative"])
def test_halves_on_the_cpu_and_on_the_gpu(fake, images_per_run, which):
    """Rows of one input come from both; one row serves all images."""
    x, (positive, negative) = random_latents(3), contexts(3)
    positive = positive[:1]
    on_cpu, on_gpu = denoisers(fake, images_per_run=images_per_run)
    wanted = run(on_cpu, x, positive, negative)
    given = {"positive": positive, "negative": negative}
    given[which] = GpuArray(fake, given[which])
    result = run(on_gpu, x, given["positive"], given["negative"])
    assert isinstance(result, np.ndarray)  # where x was
    np.testing.assert_allclose(result, wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max())


def test_where_the_sample_stays_can_be_chosen(fake):
    x, (positive, negative) = random_latents(2), contexts(2)
    on_cpu, on_gpu = denoisers(fake)
    stays = run(on_gpu, x, positive, negative, on_device=True)
    comes = run(on_gpu, GpuArray(fake, x), positive, negative, on_device=False)
    assert isinstance(comes, np.ndarray)
    np.testing.assert_array_equal(stays.numpy(), comes)
    # A sample is as good a start as any.
    again = run(on_gpu, stays, positive, negative)
    np.testing.assert_array_equal(again.numpy(), run(on_gpu, comes, positive, negative))
    with pytest.raises(InvalidRequestError, match="on_device"):
        run(on_cpu, x, positive, negative, on_device=True)


@pytest.mark.parametrize("real", ["float32", "float16"])
def test_types_are_converted_on_the_gpu(fake, real):
    """float16 comes in where the loop wants float32, and float32 where the graph wants float16."""
    x, (positive, negative) = random_latents(2), contexts(2)
    gpu = tx.Denoiser(tanh_network(real=real), device=fake.gpu())
    halves = [values.astype(np.float16) for values in (x, positive, negative)]
    wanted = run(gpu, *halves, on_device=False)
    for given in (halves, [values.astype(np.float32) for values in halves]):
        fake.clear()
        result = run(gpu, *(GpuArray(fake, values, offset=2) for values in given))
        assert sizes(fake, COPIES_TO_DEVICE) == [4, 5 * 256]
        np.testing.assert_array_equal(result.numpy(), wanted)


def test_the_consumer_shares_the_memory(fake):
    x, (positive, negative) = random_latents(2), contexts(2)
    gpu = denoisers(fake)[1]
    result = run(gpu, x, positive, negative, on_device=True)
    values = result.numpy()
    taken = [Taken(result), Taken(result, max_version=(1, 1), stream=2)]
    assert [one.name for one in taken] == [b"dltensor", b"dltensor_versioned"]
    assert not taken[1].is_read_only
    for one in taken:
        assert one.device == (2, 0)
        assert (one.shape, one.strides) == ((2, 4, 5, 3), (60, 15, 3, 1))
        assert one.data == taken[0].data
        np.testing.assert_array_equal(one.values, values)
    taken[0].values[0] = 7.0  # no copy in between
    assert (result.numpy()[0] == 7.0).all()
    del result
    assert fake.live()["memory"] == 1  # the consumers have it
    taken[0].free()
    assert fake.live()["memory"] == 1
    taken[1].free()
    assert "memory" not in fake.live()


def test_a_capsule_that_nobody_takes_gives_the_memory_back(fake):
    array = _core.DeviceArray(fake.gpu(), np.ones(3, np.float32))
    capsule = array.__dlpack__(max_version=(1, 0))
    del array
    assert fake.live()["memory"] == 1
    del capsule
    assert fake.live() == {}


def test_the_protocol(fake):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    array = _core.DeviceArray(fake.gpu(), values)
    assert array.__dlpack_device__() == (2, 0)
    assert (array.shape, array.ndim, array.dtype, len(array)) == ((2, 3), 2, "float32", 2)
    assert repr(array) == "DeviceArray(shape=(2, 3), dtype=float32, device=cuda:0)"
    copied = Taken(array, copy=True)
    copied.values[0] = 9.0
    copied.free()
    np.testing.assert_array_equal(array.numpy(), values)
    capsule = array.__dlpack__(dl_device=(1, 0), max_version=(1, 0))
    assert "dltensor_versioned" in repr(capsule)  # NumPy's, of a copy on the CPU
    for options, error in (
        ({"stream": 0}, ValueError),
        ({"stream": "s"}, ValueError),
        ({"dl_device": (1, 0), "copy": False}, BufferError),
        ({"dl_device": (2, 1)}, BufferError),
    ):
        with pytest.raises(error):
            array.__dlpack__(**options)
    np.testing.assert_array_equal(array.repeat(2).numpy(), np.repeat(values, 2, axis=0))
    np.testing.assert_array_equal(array.astype("float32", 0.5).numpy(), values / 2)
    with pytest.raises(InvalidRequestError, match="int64"):
        _core.DeviceArray(fake.gpu(), np.arange(3)).astype("float32")


def test_what_is_read_only_stays_so(fake):
    array = _core.DeviceArray(fake.gpu(), GpuArray(fake, np.ones(4, np.float32), is_read_only=True))
    with pytest.raises(BufferError, match="max_version"):
        array.__dlpack__()
    taken = Taken(array, max_version=(1, 0))
    assert taken.is_read_only
    taken.free()


def test_older_libraries_and_their_capsules(fake):
    given = GpuArray(fake, np.arange(4, dtype=np.float32), is_old=True)
    array = _core.DeviceArray(fake.gpu(), given)
    np.testing.assert_array_equal(array.numpy(), np.arange(4))
    assert list(given.asked[0]) == ["stream"]
    assert given.deleted == 0
    alive = weakref.ref(array)
    del array
    gc.collect()
    assert (alive(), given.deleted) == (None, 1)


def test_slices_are_fine_and_strides_are_not(fake):
    values = random_latents(3)
    gpu = fake.gpu()
    rows = _core.DeviceArray(gpu, GpuArray(fake, values[1:]))
    np.testing.assert_array_equal(rows.numpy(), values[1:])
    one = GpuArray(fake, values[:, :1].transpose(1, 0, 2, 3)[:, 1:2])  # strides of size-1 axes
    np.testing.assert_array_equal(_core.DeviceArray(gpu, one).numpy(), values[1:2, :1])
    strided = GpuArray(fake, values[:, :2])
    with pytest.raises(InvalidRequestError, match="not contiguous") as caught:
        _core.DeviceArray(gpu, strided, "x")
    assert "contiguous()" in caught.value.hint
    assert strided.deleted == 1  # what is refused is given back


class TorchLike:
    """Has the two methods of a torch.Tensor that are asked for first."""

    def __init__(self, dense: GpuArray, asked: list[str]) -> None:
        self._dense, self._asked = dense, asked

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._dense.__dlpack_device__()

    def detach(self) -> TorchLike:
        self._asked.append("detach")
        return self

    def contiguous(self) -> GpuArray:
        self._asked.append("contiguous")
        return self._dense


def test_torch_makes_its_tensors_contiguous_itself(fake):
    x, (positive, negative) = random_latents(2), contexts(2)
    asked: list[str] = []
    denoiser = denoisers(fake)[1]
    result = run(denoiser, TorchLike(GpuArray(fake, x), asked), positive, negative)
    np.testing.assert_array_equal(result.numpy(), run(denoiser, x, positive, negative))
    assert asked == ["detach", "contiguous"]


def test_the_result_is_an_array_of_the_library_that_x_came_from(fake):
    library = ModuleType("a_library")
    library.from_dlpack = Taken  # as cupy.from_dlpack

    class Theirs(GpuArray):
        def __array_namespace__(self) -> ModuleType:
            return library

    x, (positive, negative) = random_latents(2), contexts(2)
    denoiser = denoisers(fake)[1]
    result = run(denoiser, Theirs(fake, x), positive, negative)
    assert isinstance(result, Taken)
    np.testing.assert_array_equal(result.values, run(denoiser, x, positive, negative))
    result.free()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"values": np.ones((1, 4, 2, 2), np.complex64)}, "DLPack type 5"),
        ({"values": np.ones((1, 4, 2, 2), np.int64)}, "dtype int64 on cuda:0"),
        ({"values": np.ones((1, 4, 2, 2), np.float32), "major": 2}, "DLPack 2"),
        ({"values": np.array(1.0, np.float32)}, r"shape \(\)"),
    ],
)
def test_other_arrays_are_refused(fake, given, found):
    denoiser = denoisers(fake, has_condition=False)[1]
    with pytest.raises(InvalidRequestError, match=found):
        tx.sample(denoiser, GpuArray(fake, **given), program_of("euler", 2))
    assert "memory" not in fake.live()


class NoCapsule:
    def __init__(self, answer: object) -> None:
        self._answer = answer

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, **_: object) -> object:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.mark.parametrize("answer", [3, None, BufferError("busy"), RuntimeError("requires grad")])
def test_libraries_that_do_not_export(fake, answer):
    with pytest.raises(InvalidRequestError, match="DLPack") as caught:
        _core.DeviceArray(fake.gpu(), NoCapsule(answer))
    if isinstance(answer, Exception):
        assert str(answer) in caught.value.details["cause"]


def test_arrays_on_a_gpu_for_a_loop_on_the_cpu(fake):
    x, (positive, negative) = random_latents(2), contexts(2)
    on_cpu, _ = denoisers(fake)
    for given in (
        (GpuArray(fake, x), positive, negative),
        (x, GpuArray(fake, positive), negative),
    ):
        with pytest.raises(InvalidRequestError, match="on a GPU") as caught:
            run(on_cpu, *given)
        assert "x.cpu()" in caught.value.hint
        assert 'device="cuda"' in caught.value.hint


def test_what_has_to_be_on_the_cpu(fake):
    x = random_latents(1)
    denoiser = denoisers(fake, has_condition=False)[1]
    inpainting = trace_plan(from_config(CONFIG, 2, sampler="euler"), inpaint=True)
    stepwise = step_by_step("euler", [2.0, 1.0, 0.0])
    with pytest.raises(InvalidRequestError, match="step-by-step"):
        tx.sample(denoiser, GpuArray(fake, x), stepwise)
    mask = GpuArray(fake, x)
    with pytest.raises(InvalidRequestError, match="mask: an array on a GPU"):
        tx.sample(denoiser, x, inpainting, known=x, mask=mask, known_noise=x)


def test_no_memory_for_the_sample(fake):
    x, (positive, negative) = random_latents(2), contexts(2)
    denoiser = denoisers(fake)[1]
    good = run(denoiser, x, positive, negative, on_device=True)
    live = fake.live()
    fake.fail("cuMemAlloc_v2", 0, 2)
    with pytest.raises(OutOfMemoryError, match="no memory for a buffer of 480 bytes"):
        run(denoiser, x, positive, negative, on_device=True)
    assert fake.live() == live
    again = run(denoiser, x, positive, negative, on_device=True)
    np.testing.assert_array_equal(again.numpy(), good.numpy())


def test_tensors_of_torch_on_the_cpu_come_in_as_before(fake):
    torch = pytest.importorskip("torch")
    x, (positive, negative) = random_latents(2), contexts(2)
    denoiser = denoisers(fake)[1]
    result = run(denoiser, torch.tensor(x, requires_grad=True), torch.tensor(positive), negative)
    assert isinstance(result, torch.Tensor)
    np.testing.assert_array_equal(result.numpy(), run(denoiser, x, positive, negative))
    stays = run(denoiser, torch.tensor(x), positive, negative, on_device=True)
    assert isinstance(stays, tx.DeviceArray)
    np.testing.assert_array_equal(stays.numpy(), result.numpy())


def test_numpy_takes_a_copy(fake):
    if np.lib.NumpyVersion(np.__version__) < "2.1.0":
        pytest.skip("needs a NumPy that asks for a device")
    array = _core.DeviceArray(fake.gpu(), np.arange(4, dtype=np.float32))
    np.testing.assert_array_equal(np.from_dlpack(array, device="cpu"), np.arange(4))


def test_a_forked_child_is_told_so(fake):
    array = _core.DeviceArray(fake.gpu(), np.ones(3, np.float32))
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            array.numpy()
            found = "nothing was raised"
        except ForkedProcessError:
            found = "forked"
        os.write(write, found.encode())
        os._exit(0)
    os.wait()
    assert os.read(read, 100) == b"forked"
    os.close(read)
    os.close(write)
    np.testing.assert_array_equal(array.numpy(), np.ones(3))
