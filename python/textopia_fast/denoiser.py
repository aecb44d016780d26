"""A score network: any ONNX graph that takes a noisy sample and a noise level."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from . import _core
from ._ort import create_session
from .checks import check_choice, check_integer, check_mapping, refuse, shown
from .devices import open_device
from .errors import EngineStateError, InvalidRequestError, UnsupportedModelError
from .providers import choose_provider
from .samplers import Program, Schedule, trace
from .schedules.levels import NOISE_INPUTS, explicit
from .tracing.prediction import PREDICTIONS
from .tracing.trace import Sampler

__all__ = ["Denoiser", "Hoisted"]

MAX_IMAGES_PER_RUN = 65536

_ROLES = ("sample", "noise_level", "output")
_SAMPLE_NAMES = ("sample", "x", "x_t", "latents", "input")
_NOISE_NAMES = (
    "timestep",
    "t",
    "timesteps",
    "sigma",
    "sigmas",
    "noise_level",
    "log_sigma",
    "c_noise",
)
_OUTPUT_NAMES = ("out_sample", "sample", "output", "score", "denoised", "epsilon", "noise_pred")


@dataclass(frozen=True)
class Hoisted:
    """What the graph compiler has taken out of a denoiser's graph (see `graph.split`).

    Attributes:
        time: Noise levels [R] -> the denoiser's noise-level input [R, N], run once per call.
        prompt: Conditioning -> inputs of the denoiser's graph, run once per call.
        ends: The same network computed more exactly, which runs the first and the last tenth of a
            program's evaluations, at least one each.
        shares_prefix: The graph takes the sample once for both halves of guidance.
    """

    time: _core.Session | None = None
    prompt: _core.Session | None = None
    ends: _core.Session | None = None
    shares_prefix: bool = False


class Denoiser:
    """An ONNX graph with the roles of its tensors, ready to be sampled from natively.

    Attributes:
        prediction, noise_input: As given.
        conditioning_names: Inputs that `sample` is given as `cond`.
        conditioning_dtypes: Their element types by name.
        session: The open graph.
        gpu: Where graph and loop run, or None for the CPU.
        has_ends: Another network runs the first and last evaluations of a program.

    Args:
        graph: Path of an .onnx file, its bytes, or an open session. The sample input is [B, ...]
            float32 or float16, the noise level a scalar, [1] or [B]; every other input is
            conditioning that `sample` is given.
        prediction: What the network returns: "epsilon", "v_prediction", "sample" (x0), "score" or
            "flow".
        noise_input: What its noise level means: "timestep", "sigma" or "log_sigma".
        inputs: Roles by name where they cannot be told from the usual names:
            {"sample": ..., "noise_level": ..., "output": ...}.
        threads: Threads of one graph run; None takes one per usable CPU.
        images_per_run: Images of a batch that share one graph run; None for the whole batch. With
            1, an image does not depend on its neighbours bit for bit.
        device: "cpu", "cuda" or "cuda:N": where the graph and the whole loop run. An open session
            and an open GPU go together.
        hoisted: The graphs beside this one, where it is the body of a compiled U-Net.
        provider: What runs the graph: None, "auto" or "cpu" for ONNX Runtime's CPU provider,
            "openvino" for OpenVINO, in float32.
        cuda_graphs: On a GPU, runs of the graph are replayed as CUDA graphs where that is possible
            (`session.cuda_graphs` says so). Not for a graph that is open already.

    Raises:
        ModelNotFoundError, ModelFormatError, UnsupportedModelError: The graph cannot be used.
        InvalidRequestError: An option is outside what is allowed.
        ConfigurationError: No ONNX Runtime is installed, or the device or the provider cannot be
            used.
    """

    def __init__(
        self,
        graph: str | os.PathLike[str] | bytes | _core.Session,
        *,
        prediction: str = "epsilon",
        noise_input: str = "timestep",
        inputs: dict[str, str] | None = None,
        threads: int | None = None,
        images_per_run: int | None = None,
        device: str | _core.Gpu = "cpu",
        hoisted: Hoisted | None = None,
        provider: str | None = None,
        cuda_graphs: bool = True,
    ) -> None:
        self.prediction = check_choice("prediction", prediction, PREDICTIONS)
        self.noise_input = check_choice("noise_input", noise_input, NOISE_INPUTS)
        self.gpu = device if isinstance(device, _core.Gpu) else open_device(device)
        plugin = choose_provider(provider, threads=threads, device=device)
        if isinstance(graph, _core.Session):
            if plugin is not None:
                refuse("provider", provider, "for a graph that is open already is None")
            self.session = graph
        else:
            self.session = create_session(
                graph, threads=threads, plugin=plugin, gpu=self.gpu, cuda_graphs=cuda_graphs
            )
        rows = 0  # for the core: the whole batch
        if images_per_run is not None:
            rows = check_integer("images_per_run", images_per_run, 1, MAX_IMAGES_PER_RUN)
        roles = self._find_roles(check_mapping("inputs", inputs, "is a mapping from role to name"))
        hoisted = hoisted or Hoisted()
        self._native = _core.Denoiser(
            self.session,
            images_per_run=rows,
            gpu=self.gpu,
            shares_prefix=hoisted.shares_prefix,
            time_graph=hoisted.time,
            prompt_graph=hoisted.prompt,
            ends_graph=hoisted.ends,
            **roles,
        )
        self.conditioning_dtypes = {info.name: info.dtype for info in self._native.conditioning}
        self.has_ends = hoisted.ends is not None
        self.conditioning_names = tuple(self.conditioning_dtypes)

    def trace(
        self, sampler: str | Sampler, schedule: Schedule | Sequence[float], **options: Any
    ) -> Program:
        """The program of `sampler` over `schedule` for what this network predicts (see `trace`).

        Args:
            sampler: A name of `tx.samplers` or a function of one's own.
            schedule: A `Schedule`, or n+1 sigmas for a network that is told sigma itself.
            **options: Of the sampler.

        Raises:
            InvalidRequestError: The schedule tells the network something else than `noise_input`.
        """
        if not isinstance(schedule, Schedule):
            schedule = explicit(schedule)
        if schedule.noise_input != self.noise_input:
            raise InvalidRequestError(
                f"schedule: made for networks that take {schedule.noise_input}, allowed here is "
                f"{self.noise_input}.",
                param="schedule",
            )
        return trace(sampler, schedule, prediction=self.prediction, **options)

    def predicting(self, prediction: str) -> Denoiser:
        """The same network, taken to predict something else; shares the open graph."""
        other = object.__new__(Denoiser)
        vars(other).update(vars(self))
        other.prediction = check_choice("prediction", prediction, PREDICTIONS)
        return other

    def __repr__(self) -> str:
        return f"Denoiser({self.session.label!r}, {self.prediction} at {self.noise_input})"

    def __reduce__(self) -> NoReturn:
        raise EngineStateError(
            "denoiser: holds an open graph, which cannot be copied or pickled.",
            hint="Share it between threads as it is; in another process, open the graph again.",
        )

    def _find_roles(self, given: dict[str, str]) -> dict[str, str]:
        unknown = set(given) - set(_ROLES)
        if unknown:
            raise InvalidRequestError(
                f"inputs: unknown roles {shown(sorted(unknown))}, allowed are {', '.join(_ROLES)}.",
                param="inputs",
            )
        for role, name in given.items():
            if not isinstance(name, str):
                refuse(f"inputs[{role!r}]", name, "is the name of a tensor")
        inputs = [info.name for info in self.session.inputs]
        outputs = [info.name for info in self.session.outputs]
        return {
            "sample": given.get("sample") or _pick("sample", inputs, _SAMPLE_NAMES),
            "noise_level": given.get("noise_level") or _pick("noise_level", inputs, _NOISE_NAMES),
            "output": given.get("output")
            or (outputs[0] if len(outputs) == 1 else _pick("output", outputs, _OUTPUT_NAMES)),
        }


def _pick(role: str, names: list[str], usual: tuple[str, ...]) -> str:
    for name in usual:
        if name in names:
            return name
    raise UnsupportedModelError(
        f"graph: none of {', '.join(names)} is known as the {role}, allowed are "
        f"{', '.join(usual)}.",
        hint=f'Name it: inputs={{"{role}": "..."}}.',
    )
