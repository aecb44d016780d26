"""
The native core of textopia_fast. Use the package, not this module: it has no stable API.
"""

from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import os
import typing

__all__: list[str] = [
    "Binding",
    "BrownianStream",
    "CallerStream",
    "CancelToken",
    "CudaDriver",
    "Denoiser",
    "DeviceArray",
    "Gpu",
    "KeptPlans",
    "KernelImage",
    "NoiseStream",
    "PlanSource",
    "PlanTrials",
    "Plugin",
    "Program",
    "Progress",
    "RunControl",
    "Session",
    "TensorInfo",
    "active_isa",
    "active_matrix_unit",
    "amx_refusal",
    "bfloat16_to_float",
    "candidate_plans",
    "cgroup_cpu_limit",
    "combine",
    "cpu_features",
    "float_to_bfloat16",
    "float_to_half",
    "half_to_float",
    "int8_unit",
    "is_on_gpu",
    "ort_info",
    "pack_conv",
    "pack_linear",
    "sample",
    "set_matrix_unit",
    "set_ort_candidates",
    "supported_isas",
    "supported_matrix_units",
    "threshold",
    "usable_cpus",
]

class NoiseStream:
    """
    A stream of standard normal numbers; one user at a time.
    """
    @staticmethod
    def array(values: numpy.ndarray) -> NoiseStream:
        """
        Noise given by the caller, copied. values: float32 [draws, ...]; draw k returns block k.
        """
    @staticmethod
    def cuda(
        seeds: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        shared: bool = False,
    ) -> NoiseStream:
        """
        torch.randn of CUDA generators (Philox4x32-10, small tensors), to the last bits of float32.
        """
    @staticmethod
    def function(function: collections.abc.Callable) -> NoiseStream:
        """
        Noise that a Python function makes: function(image_count, count_per_image) gives float32 of as many values.
        """
    @staticmethod
    def philox(
        seeds: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    ) -> NoiseStream:
        """
        Counter-based: a value depends on (seed of its image, draw, element) alone.
        """
    @staticmethod
    def torch(
        seeds: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        shared: bool = False,
    ) -> NoiseStream:
        """
        torch.randn of CPU generators, bit for bit as torch computes it on x86 with AVX2 (without AVX2 torch's own last bits differ). One generator per image, or one for the batch when shared.
        """
    def draw(
        self,
        image_count: typing.SupportsInt | typing.SupportsIndex,
        count_per_image: typing.SupportsInt | typing.SupportsIndex,
    ) -> numpy.typing.NDArray[numpy.float32]:
        """
        The next draw: float32 [image_count, count_per_image]. Raises InvalidRequestError when the stream is in use by another thread, has another number of images, or has run out.
        """
    @property
    def is_shared(self) -> bool:
        """
        One generator draws the whole batch at once.
        """

class CallerStream(NoiseStream):
    """
    Goes on from the states of torch.Generators.
    """
    @staticmethod
    def cuda_states(
        states: collections.abc.Sequence[bytes],
        owners: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    ) -> CallerStream:
        """
        The same for CUDA generators, computed on the CPU.
        """
    @staticmethod
    def torch_states(
        states: collections.abc.Sequence[bytes],
        owners: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    ) -> CallerStream:
        """
        From get_state of CPU generators; owners[i] is the generator of image i, none: one for all.
        """
    def states(self) -> list[bytes]:
        """
        The states after the draws so far, for set_state.
        """

class BrownianStream(NoiseStream):
    """
    Increments of Brownian paths over sigma, one path per image.
    """
    @staticmethod
    def of_seeds(
        seeds: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    ) -> BrownianStream:
        """
        One path per seed; what is not over an interval is drawn as by `torch` of the seeds.
        """
    def follow(
        self,
        intervals: collections.abc.Sequence[
            tuple[
                typing.SupportsFloat | typing.SupportsIndex,
                typing.SupportsFloat | typing.SupportsIndex,
            ]
        ],
    ) -> None:
        """
        The (from, to) that the next draws stand for; of equal ends where none.
        """

class CancelToken:
    """
    Cancels every call that it was given to, from any thread; it stays cancelled.
    """
    def __init__(self) -> None: ...
    def cancel(self) -> None:
        """
        Ends those calls at the next node of the running graph, or at the next step.
        """
    @property
    def cancelled(self) -> bool: ...

class Progress:
    """
    Counts the steps of a call; may be read from any thread.
    """
    def __init__(self) -> None: ...
    def advance(self) -> None: ...
    def begin(self, total: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Starts to count, for loops in Python; 0: how many is not known beforehand.
        """
    @property
    def steps_done(self) -> int: ...
    @property
    def steps_total(self) -> int: ...

class CudaDriver:
    """
    NVIDIA's driver, opened at run time.
    """
    def __init__(self, library: str = "libcuda.so.1") -> None:
        """
        Raises ConfigurationError where there is no driver, or one that is too old.
        """
    @property
    def devices(self) -> list:
        """
        Per device: name, architecture (90 for 9.0), multiprocessors, memory_bytes.
        """
    @property
    def library(self) -> str: ...
    @property
    def version(self) -> int:
        """
        Of CUDA: 12040 for 12.4.
        """

class KernelImage:
    """
    A compiled kernel: one entry of an archive.
    """
    def __init__(
        self,
        name: str,
        function: str,
        cubin: bytes,
        parameter_bytes: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        *,
        warps: typing.SupportsInt | typing.SupportsIndex,
        shared_bytes: typing.SupportsInt | typing.SupportsIndex,
        constants: collections.abc.Mapping[str, typing.SupportsInt | typing.SupportsIndex],
    ) -> None: ...
    @property
    def name(self) -> str: ...

class Gpu:
    """
    A GPU with a stream and the kernels of the loop.
    """
    def __init__(
        self,
        driver: CudaDriver,
        ordinal: typing.SupportsInt | typing.SupportsIndex,
        kernels: collections.abc.Sequence[KernelImage],
        *,
        is_emulated: bool = False,
    ) -> None:
        """
        is_emulated: the driver's device memory is the host's, and graphs run on the CPU (for tests).
        """
    def run_kernel(
        self,
        name: str,
        grid: typing.Annotated[
            collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(3)"
        ],
        arguments: collections.abc.Sequence[typing.Any],
        *,
        repeats: typing.SupportsInt | typing.SupportsIndex = 1,
    ) -> float:
        """
        Arrays are copied to the device and back; numbers are given as their bytes, null as None. Returns milliseconds per launch.
        """
    @property
    def is_lost(self) -> bool: ...
    @property
    def memory(self) -> tuple:
        """
        Free and total bytes.
        """
    @property
    def ordinal(self) -> int: ...
    @property
    def stream(self) -> int: ...

class DeviceArray:
    """
    A tensor in a GPU's memory, C-contiguous. torch.from_dlpack, cupy.from_dlpack and the like take it without a copy; `numpy()` copies it to the CPU. Its memory is freed when nobody has it any more.
    """
    def __dlpack__(
        self,
        *,
        stream: typing.Any | None = None,
        max_version: tuple[
            typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
        ]
        | None = None,
        dl_device: tuple[
            typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
        ]
        | None = None,
        copy: bool | None = None,
    ) -> typing.Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __init__(self, gpu: Gpu, value: typing.Any, name: str = "array") -> None:
        """
        `value` on that GPU: what lies there as it is, NumPy arrays copied.
        """
    def __len__(self) -> int: ...
    def __repr__(self) -> str: ...
    def astype(
        self, dtype: str, scale: typing.SupportsFloat | typing.SupportsIndex = 1.0
    ) -> DeviceArray:
        """
        As another floating-point type, times `scale`; on the GPU.
        """
    def numpy(self) -> numpy.ndarray:
        """
        A copy on the CPU; bfloat16 as its bits, uint16.
        """
    def repeat(self, count: typing.SupportsInt | typing.SupportsIndex) -> DeviceArray:
        """
        Every row of the first axis `count` times, as numpy.repeat does.
        """
    @property
    def device(self) -> str:
        """
        "cuda:0" and so on.
        """
    @property
    def dtype(self) -> str:
        """
        NumPy's name of the element type, or "bfloat16".
        """
    @property
    def ndim(self) -> int: ...
    @property
    def shape(self) -> tuple: ...

class PlanSource:
    """
    Where a session finds the plans of its products.
    """

class KeptPlans(PlanSource):
    """
    Plans for some shapes of products.
    """
    def __init__(
        self,
        entries: collections.abc.Sequence[
            tuple[
                tuple[
                    typing.SupportsInt | typing.SupportsIndex,
                    typing.SupportsInt | typing.SupportsIndex,
                    typing.SupportsInt | typing.SupportsIndex,
                    typing.SupportsInt | typing.SupportsIndex,
                    typing.SupportsInt | typing.SupportsIndex,
                    typing.SupportsInt | typing.SupportsIndex,
                    typing.SupportsInt | typing.SupportsIndex,
                ],
                tuple[
                    typing.SupportsInt | typing.SupportsIndex,
                    typing.SupportsInt | typing.SupportsIndex,
                    typing.SupportsInt | typing.SupportsIndex,
                ],
            ]
        ],
    ) -> None:
        """
        Pairs of a shape and a plan. Raises InvalidRequestError for one that is not possible.
        """

class PlanTrials(PlanSource):
    """
    Tries plans in turn while a session runs, and keeps their times.
    """
    def __init__(self) -> None: ...
    def trials(self) -> list:
        """
        (shape, [(plan, seconds of its runs)]) of every shape that ran, the computed plan first.
        """
    @property
    def done(self) -> int:
        """
        Products that have run.
        """
    @property
    def missing(self) -> int:
        """
        Products that have to run until every plan has been tried often enough.
        """

class TensorInfo:
    """
    One input or output of a graph.
    """
    def __repr__(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> list:
        """
        list of int, the name of a free size, or None where it has no name
        """

class RunControl:
    """
    Stops the runs that it is given to, from any thread.
    """
    def __init__(self) -> None: ...
    def reset(self) -> None: ...
    def terminate(self) -> None:
        """
        Sticky until reset().
        """
    @property
    def is_terminated(self) -> bool: ...

class Plugin:
    """
    An execution provider in a library of its own.
    """
    def __init__(
        self,
        *,
        library: str,
        provider: str,
        device: collections.abc.Mapping[str, str],
        options: collections.abc.Mapping[str, str],
    ) -> None: ...
    def check(self) -> None:
        """
        Raises ConfigurationError where it cannot be opened or has no such device.
        """

class Session:
    """
    A loaded ONNX graph.
    """
    @staticmethod
    def from_file(
        path: os.PathLike | str | bytes,
        *,
        label: str = "",
        threads: typing.SupportsInt | typing.SupportsIndex = 0,
        optimization_level: typing.SupportsInt | typing.SupportsIndex = 99,
        config: collections.abc.Mapping[str, str] = {},
        plugin: Plugin | None = None,
        gpu: Gpu | None = None,
        cuda_options: collections.abc.Mapping[str, str] = {},
        cuda_graphs: bool = False,
        memory_pattern: bool = True,
        plans: PlanSource | None = None,
    ) -> Session: ...
    @staticmethod
    def from_memory(
        model: bytes,
        *,
        label: str = "graph",
        threads: typing.SupportsInt | typing.SupportsIndex = 0,
        optimization_level: typing.SupportsInt | typing.SupportsIndex = 99,
        config: collections.abc.Mapping[str, str] = {},
        plugin: Plugin | None = None,
        gpu: Gpu | None = None,
        cuda_options: collections.abc.Mapping[str, str] = {},
        cuda_graphs: bool = False,
        memory_pattern: bool = True,
        plans: PlanSource | None = None,
    ) -> Session: ...
    def run(self, feeds: dict, *, control: RunControl | None = None, cancel: CancelToken | None = None) -> dict:
        """
        All outputs by name, as new arrays. bfloat16 crosses as uint16 bits. cancel ends the run, and terminates `control` too.
        """
    def run_repeatedly(
        self,
        feeds: dict,
        count: typing.SupportsInt | typing.SupportsIndex,
        *,
        control: RunControl | None = None,
    ) -> float:
        """
        Seconds of `count` runs over buffers that are bound once.
        """
    @property
    def cuda_device(self) -> int | None: ...
    @property
    def cuda_graphs(self) -> str:
        """
        on, off, or "off: " and why it cannot be captured.
        """
    @property
    def inputs(self) -> list[TensorInfo]: ...
    @property
    def label(self) -> str: ...
    @property
    def outputs(self) -> list[TensorInfo]: ...

class Binding:
    """
    Arrays bound to a session once and run many times.
    """
    def __init__(self, session: Session) -> None: ...
    def input(self, name: str, array: typing.Any) -> None:
        """
        Strided arrays are copied; others are read at each run().
        """
    def output(self, name: str, array: typing.Any) -> None:
        """
        Written by each run().
        """
    def run(self, control: RunControl | None = None) -> None: ...

class Program:
    """
    A validated instruction table.
    """
    def __init__(
        self,
        instructions: collections.abc.Iterable,
        *,
        latents: typing.SupportsInt | typing.SupportsIndex,
        outputs: typing.SupportsInt | typing.SupportsIndex,
        result: typing.SupportsInt | typing.SupportsIndex,
    ) -> None:
        """
        instructions: tuples as made by textopia_fast.samplers.Program.to_native(). Raises InvalidRequestError.
        """
    @property
    def blends(self) -> bool: ...
    @property
    def denoise_count(self) -> int: ...
    @property
    def draws_noise(self) -> bool: ...
    @property
    def step_count(self) -> int: ...

class Denoiser:
    """
    A graph and the roles of its tensors.
    """
    def __init__(
        self,
        session: Session,
        *,
        sample: str,
        noise_level: str,
        output: str,
        images_per_run: typing.SupportsInt | typing.SupportsIndex = 0,
        gpu: Gpu | None = None,
        shares_prefix: bool = False,
        time_graph: Session | None = None,
        prompt_graph: Session | None = None,
        ends_graph: Session | None = None,
    ) -> None: ...
    @property
    def conditioning(self) -> list[TensorInfo]:
        """
        What `sample` is given, a TensorInfo each.
        """

def active_isa() -> str:
    """
    The ISA in use: the best one, or TEXTOPIA_FORCE_ISA. Raises ConfigurationError when that is unknown here.
    """

def active_matrix_unit() -> str:
    """
    The unit that new sessions take: the best one that TEXTOPIA_FORCE_ISA allows.
    """

def amx_refusal() -> str:
    """
    Why a CPU with AMX cannot use it; empty otherwise.
    """

def bfloat16_to_float(isa: str, source: numpy.ndarray) -> numpy.typing.NDArray[numpy.float32]:
    """
    The bits of bfloat16 (uint16) to float32, exact.
    """

def candidate_plans(
    shape: tuple[
        typing.SupportsInt | typing.SupportsIndex,
        typing.SupportsInt | typing.SupportsIndex,
        typing.SupportsInt | typing.SupportsIndex,
        typing.SupportsInt | typing.SupportsIndex,
        typing.SupportsInt | typing.SupportsIndex,
        typing.SupportsInt | typing.SupportsIndex,
        typing.SupportsInt | typing.SupportsIndex,
    ],
    threads: typing.SupportsInt | typing.SupportsIndex,
) -> list[tuple[int, int, int]]:
    """
    The plan that a session of so many threads computes with the active matrix unit, and those that tuning tries beside it.
    """

def cgroup_cpu_limit(proc_cgroup: str, mount: str) -> int: ...
def combine(
    isa: str,
    sources: collections.abc.Sequence[numpy.ndarray],
    weights: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex],
    scales: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex],
    outputs: collections.abc.Sequence[numpy.ndarray],
) -> bool:
    """
    outputs[k] = scales[k] * sum(weights[i] * sources[i]) in float32; arrays are C-contiguous float32 of one size. Returns whether every sum is finite. Raises InvalidRequestError, ConfigurationError.
    """

def cpu_features() -> list[str]:
    """
    CPU features that the operating system has enabled, as list[str].
    """

def float_to_bfloat16(isa: str, source: numpy.ndarray) -> numpy.typing.NDArray[numpy.uint16]:
    """
    float32 to the bits of bfloat16 (uint16), round to nearest even.
    """

def float_to_half(isa: str, source: numpy.ndarray) -> numpy.typing.NDArray[numpy.uint16]:
    """
    float32 to the bits of float16 (uint16), round to nearest even.
    """

def half_to_float(isa: str, source: numpy.ndarray) -> numpy.typing.NDArray[numpy.float32]:
    """
    The bits of float16 (uint16) to float32, exact.
    """

def int8_unit() -> str:
    """
    What multiplies int8 matrices beside active_matrix_unit(); scalar where nothing fast does.
    """

def is_on_gpu(value: typing.Any) -> bool:
    """
    Whether an array says by DLPack that it lies in a GPU's memory.
    """

def ort_info() -> dict: ...
def pack_conv(
    weight: numpy.ndarray, *, upsample: bool = False, int8: bool = False
) -> numpy.ndarray:
    """
    float32 [out, height, width, in] as the `bf16_panels` of Conv, uint16, or its `int8_panels`, uint8; with upsample, the four phase kernels. Raises InvalidRequestError.
    """

def pack_linear(weight: numpy.ndarray, *, geglu: bool = False, int8: bool = False) -> numpy.ndarray:
    """
    float32 [out, in] as the `bf16_panels` of Linear, uint16, or its `int8_panels`, uint8; with geglu, values above gates, of LinearGeglu. Raises InvalidRequestError.
    """

def sample(
    denoiser: Denoiser,
    program: Program,
    x: DeviceArray | typing.Annotated[numpy.typing.ArrayLike, numpy.float32],
    *,
    cond: dict = {},
    uncond: dict = {},
    guidance: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex] = [1.0],
    noise: NoiseStream | None = None,
    known: typing.Annotated[numpy.typing.ArrayLike, numpy.float32] | None = None,
    mask: typing.Annotated[numpy.typing.ArrayLike, numpy.float32] | None = None,
    known_noise: typing.Annotated[numpy.typing.ArrayLike, numpy.float32] | None = None,
    cancel: CancelToken | None = None,
    timeout: typing.SupportsFloat | typing.SupportsIndex | None = None,
    progress: Progress | None = None,
    on_step: collections.abc.Callable | None = None,
    wants_denoised: bool = False,
    on_evaluation: collections.abc.Callable | None = None,
    on_device: bool = False,
    isa: str | None = None,
) -> typing.Any:
    """
    Runs a program against a denoiser. x: float32 [B, ...], not changed; returns float32 [B, ...], with `on_device` as a DeviceArray.
    """

def set_matrix_unit(name: str) -> None:
    """
    The unit that new sessions take from now on, for tests and comparisons. Raises ConfigurationError when this machine lacks it.
    """

def set_ort_candidates(paths: collections.abc.Sequence[str]) -> None: ...
def supported_isas() -> list[str]:
    """
    Names of the ISAs that this machine can run, best first.
    """

def supported_matrix_units() -> list[str]:
    """
    What can multiply bfloat16 matrices here, best first.
    """

def threshold(
    images: numpy.ndarray,
    ratio: typing.SupportsFloat | typing.SupportsIndex,
    high: typing.SupportsFloat | typing.SupportsIndex,
) -> numpy.typing.NDArray[numpy.float32]:
    """
    Dynamic thresholding of float32 [B, n]: each row limited to [-s, s] and divided by s, the quantile `ratio` of its magnitudes, at least 1 and then at most `high`. Raises InvalidRequestError.
    """

def usable_cpus() -> int: ...

__version__: str = "0.1.0"
