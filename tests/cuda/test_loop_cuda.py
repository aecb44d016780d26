"""The loop on a GPU, with the fake driver computing the kernels and ONNX Runtime's CPU provider the
graph: the same samples as the loop on the CPU, and per step exactly what is promised."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import textopia_fast as tx
from tests.support.fake_cuda import FakeCuda, kernel_names
from tests.support.networks import tanh_network
from tests.test_loop import CONFIG, contexts, program_of, random_latents
from textopia_fast import _core
from textopia_fast.errors import (
    ConfigurationError,
    DeadlineExceededError,
    DeviceLostError,
    GenerationCancelled,
    InvalidRequestError,
    NumericalError,
    OutOfMemoryError,
)
from textopia_fast.samplers import from_config, trace_plan

# The fake computes sums in the order of the CPU; what is left are the logarithms and cosines of
# libm in its noise, and products of weights rounded once more, over up to 20 steps.
TOLERANCE = 3e-6
WATCHFUL = ("cuStreamSynchronize", "cuEventSynchronize")


@pytest.fixture
def fake() -> FakeCuda:
    return FakeCuda()


def denoisers(
    fake: FakeCuda,
    *,
    images_per_run: int | None = None,
    cuda_graphs: bool = False,
    **network: object,
):
    graph = tanh_network(**network)
    on_cpu = tx.Denoiser(graph, images_per_run=images_per_run)
    on_gpu = tx.Denoiser(
        graph, images_per_run=images_per_run, device=fake.gpu(), cuda_graphs=cuda_graphs
    )
    return on_cpu, on_gpu


def both(fake, program, batch=2, noise=None, guidance=3.0, size=(5, 3), network=None, **options):
    """The sample of the CPU, and of the GPU; the log then holds the run on the GPU alone."""
    options = dict(options)
    x = random_latents(batch, size=size)
    positive, negative = contexts(batch)
    network = network or {}
    real = network.get("real", "float32")
    results = []
    for denoiser in denoisers(fake, images_per_run=options.pop("images_per_run", None), **network):
        fake.clear()
        results.append(
            tx.sample(
                denoiser,
                x,
                program,
                {"context": positive.astype(real)},
                {"context": negative.astype(real)},
                guidance=guidance,
                noise=noise() if noise else None,
                **options,
            )
        )
        assert denoiser.gpu is not None or fake.calls() == []
    return results


@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        ("euler", {}),
        ("euler_ancestral", {}),
        ("heun", {}),
        ("dpmpp_2m", {}),
        ("dpmpp_2m_sde", {}),
        ("lms", {}),
        ("ddim", {"eta": 0.5}),
        ("unipc", {}),
    ],
)
@pytest.mark.parametrize("size", [(5, 3), (4, 4)])  # 60 elements, and 64: the wide loads
def test_samples_are_those_of_the_cpu(fake, sampler, options, size):
    program = program_of(sampler, 8, **options)
    noise = (lambda: tx.Noise.philox([7, 8])) if program.draw_count else None
    on_cpu, on_gpu = both(fake, program, noise=noise, size=size)
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=0, atol=TOLERANCE * np.abs(on_cpu).max())


@pytest.mark.parametrize("images_per_run", [None, 1, 2])
@pytest.mark.parametrize("guidance", [1.0, 3.0, [1.0] * 3 + [4.0] * 5])
def test_rows_and_guidance(fake, images_per_run, guidance):
    on_cpu, on_gpu = both(
        fake, program_of("dpmpp_2m", 8), 3, guidance=guidance, images_per_run=images_per_run
    )
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=0, atol=TOLERANCE * np.abs(on_cpu).max())


@pytest.mark.parametrize(
    "network",
    [
        {"real": "float16"},
        {"time_dtype": "int64", "time_shape": ("rows",)},
        {"time_dtype": "int64", "time_shape": (1,)},
        {"real": "float16", "time_dtype": "float16", "time_shape": ("rows",)},
    ],
    ids=str,
)
def test_types_of_graphs(fake, network):
    program = program_of("euler", 6)
    on_cpu, on_gpu = both(fake, program, 2, network=network)
    # A float16 network rounds each input and output; a last bit of float32 may change one of them.
    tolerance = 2e-3 if network.get("real") == "float16" else TOLERANCE
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=0, atol=tolerance * np.abs(on_cpu).max())


def test_a_stream_goes_on_where_the_gpu_left_it(fake):
    positive, _ = contexts(2)
    streams = [tx.Noise.philox([3, 4]).stream(2) for _ in range(2)]
    program = program_of("euler_ancestral", 6)
    for denoiser, stream in zip(denoisers(fake), streams, strict=True):
        tx.sample(denoiser, random_latents(2), program, {"context": positive}, noise=stream)
    np.testing.assert_array_equal(streams[0].draw(2, 60), streams[1].draw(2, 60))


def test_clamp_threshold_rescale_and_langevin(fake):
    clipped = CONFIG | {"clip_sample": True, "clip_sample_range": 1.0}
    plans = [from_config(clipped, 6, sampler="ddim")]
    dynamic = CONFIG | {
        "thresholding": True,
        "dynamic_thresholding_ratio": 0.9,
        "sample_max_value": 2.0,
    }
    plans.append(from_config(dynamic, 6, sampler="ddim"))
    for plan in plans:
        on_cpu, on_gpu = both(fake, trace_plan(plan))
        np.testing.assert_allclose(on_gpu, on_cpu, rtol=0, atol=TOLERANCE * np.abs(on_cpu).max())
        launched = " ".join(call for call in fake.calls() if call.startswith("cuLaunchKernel"))
        assert "clamp" in launched or "threshold" in launched


def test_a_run_of_20_steps_is_20_graph_runs_and_20_combines_without_waiting(fake):
    """One launch before the first step scales the start; nothing is allocated, copied or waited for
    between the first launch and the last, however many steps there are."""
    for sampler, steps in (("euler", 20), ("dpmpp_2m", 20), ("euler_ancestral", 20)):
        program = program_of(sampler, steps)
        both(fake, program, noise=lambda: tx.Noise.philox([1, 2]))
        names = fake.names()
        first = names.index("cuLaunchKernel")
        last = len(names) - 1 - names[::-1].index("cuLaunchKernel")
        assert names[first : last + 1] == ["cuLaunchKernel"] * (steps + 1)
        before, after = names[:first], names[last + 1 :]
        assert not {"cuStreamSynchronize", "cuEventSynchronize"} & set(before)
        # The sample and whether it is finite; then what the request had is released.
        assert after[:3] == ["cuMemcpyDtoHAsync_v2", "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize"]
        assert "cuMemAlloc_v2" not in after


def test_graph_and_kernels_take_turns(fake):
    """The graph is run between two launches: seen from inside of the network, through its input."""
    program = program_of("euler", 5)
    assert program.denoise_count == 5
    on_cpu, on_gpu = both(fake, program, 1)
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=0, atol=TOLERANCE * np.abs(on_cpu).max())
    # 5 updates and the first input; were a graph run left out or out of turn, the samples differed.
    assert fake.names().count("cuLaunchKernel") == 6


def test_a_second_run_loads_nothing_and_leaks_nothing(fake):
    _, denoiser = denoisers(fake)
    positive, negative = contexts(2)

    def run() -> np.ndarray:
        return tx.sample(
            denoiser,
            random_latents(2),
            program_of("euler", 4),
            {"context": positive},
            {"context": negative},
            guidance=2.0,
        )

    first, live = run(), fake.live()
    fake.clear()
    np.testing.assert_array_equal(run(), first)
    assert "cuModuleLoadData" not in fake.names()
    assert fake.live() == live == {"stream": 1, "module": 1, "context": 1}


def test_the_end_of_a_denoiser_releases_its_gpu(fake):
    denoiser = denoisers(fake, has_condition=False)[1]
    tx.sample(denoiser, random_latents(1), program_of("euler", 2))
    assert fake.live() == {"stream": 1, "module": 1, "context": 1}
    del denoiser
    assert fake.live() == {}


def test_watchers_bound_how_far_the_host_runs_ahead(fake):
    progress = _core.Progress()
    both(fake, program_of("euler", 6), progress=progress)
    assert (progress.steps_done, progress.steps_total) == (6, 6)
    assert fake.names().count("cuEventRecord") == 6
    assert fake.names().count("cuEventSynchronize") == 4  # from the third step on


def test_cancelled_and_late_runs_leave_nothing_behind(fake):
    _, denoiser = denoisers(fake, has_condition=False)
    program = program_of("euler", 8)
    cancel = tx.CancelToken()

    def stop(step, latents, denoised):
        if step == 3:
            cancel.cancel()

    with pytest.raises(GenerationCancelled) as caught:
        tx.sample(denoiser, random_latents(1), program, cancel=cancel, on_step=stop)
    assert caught.value.details["steps_done"] == 4
    with pytest.raises(DeadlineExceededError):
        tx.sample(denoiser, random_latents(1), program, deadline=0.0)
    assert "memory" not in fake.live()
    # What was enqueued is through before its memory goes.
    names = fake.names()
    assert names.index("cuStreamSynchronize") < names.index("cuMemFree_v2")


def test_infinite_latents_tell_their_step(fake):
    _, denoiser = denoisers(fake, has_condition=False)
    x = random_latents(2)

    def spoil(step, latents, denoised):
        return latents * np.float32(np.inf) if step == 2 else None

    with pytest.raises(NumericalError) as caught:
        tx.sample(denoiser, x, program_of("euler", 6), on_step=spoil)
    assert caught.value.details["step"] == 3
    x[1, 0, 0, 0] = np.nan
    with pytest.raises(NumericalError) as caught:
        tx.sample(denoiser, x, program_of("euler", 6))
    assert caught.value.details["step"] == 0


def test_errors_of_the_driver_end_the_run_and_release_everything(fake):
    _, denoiser = denoisers(fake, has_condition=False)
    program = program_of("euler", 4)

    def run() -> np.ndarray:
        return tx.sample(denoiser, random_latents(1), program)

    good = run()
    fake.fail("cuMemAlloc_v2", 3, 2)
    with pytest.raises(OutOfMemoryError, match="cuda:0: no memory"):
        run()
    np.testing.assert_array_equal(run(), good)
    assert "memory" not in fake.live()
    fake.fail("cuLaunchKernel", 2, 719)
    with pytest.raises(DeviceLostError):
        run()
    with pytest.raises(DeviceLostError, match="stopped earlier"):
        run()
    assert denoiser.gpu.is_lost


def test_every_call_of_a_run_failing_in_turn():
    fake = FakeCuda()
    _, denoiser = denoisers(fake, has_condition=False)
    program = program_of("euler_ancestral", 3)

    def run() -> np.ndarray:
        noise = tx.Noise.philox([5])
        return tx.sample(denoiser, random_latents(1), program, noise=noise)

    good = run()
    fake.clear()
    run()
    calls = len(fake.names())
    messages = []
    for failing in range(calls):
        fake.fail("*", failing, 1)
        try:
            result = run()
        except tx.TextopiaError as error:
            messages.append(str(error))
        else:  # what fails while a request is being released changes nothing any more
            np.testing.assert_array_equal(result, good)
        fake.fail("", 0, 0)
        assert fake.live().get("pushed") is None
        np.testing.assert_array_equal(run(), good)
    assert len(messages) > 20
    assert all("CUDA_ERROR_FAKE" in message for message in messages)


def test_a_session_of_another_device_is_refused(fake):
    gpu = fake.gpu(emulated=False)
    with pytest.raises(ConfigurationError, match="CUDA provider"):
        tx.Denoiser(tanh_network(), device=gpu)  # this ONNX Runtime has none
    session = tx.Denoiser(tanh_network()).session
    with pytest.raises(ConfigurationError, match="made for that device"):
        tx.Denoiser(session, device=gpu)


@pytest.mark.parametrize(("bank", "found"), [("x", "latents and draws"), ("u", "network outputs")])
def test_a_sum_with_more_terms_than_the_kernel_takes(fake, bank, found):
    code: list[tuple[object, ...]] = [("denoise", i, 0, 1.0, 5.0) for i in range(9)]
    code += [("combine", i, [("x", 0, 1.0)], 0.0) for i in range(1, 9)]
    code.append(("combine", 0, [(bank, i, 0.5) for i in range(9)], 0.0))
    program = _core.Program(code, latents=9, outputs=9, result=0)
    denoiser = tx.Denoiser(tanh_network(has_condition=False), device=fake.gpu())
    with pytest.raises(InvalidRequestError, match=f"a sum of more than 8 {found}"):
        _core.sample(denoiser._native, program, random_latents(1))
    assert "cuLaunchKernel" not in fake.names()
    assert "memory" not in fake.live()


def test_names_of_kernels_are_those_of_the_manifest():
    """What the loop asks for is what kernels/build.py compiles."""
    pytest.importorskip("triton")
    from kernels import manifest

    assert set(kernel_names()) <= {variant.name for variant in manifest.compiled()}


def test_threads_take_turns(fake):
    """One stream per denoiser; a callback needs the GIL while other threads wait for their turn."""
    denoiser = denoisers(fake, has_condition=False)[1]
    program = program_of("euler", 5)

    def run(seed: int) -> np.ndarray:
        calls: list[int] = []
        watch = (lambda step, *_: calls.append(step)) if seed % 2 else None
        result = tx.sample(denoiser, random_latents(1, seed), program, on_step=watch)
        assert calls == (list(range(5)) if watch else [])
        return result

    alone = [run(seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        for found, wanted in zip(pool.map(run, range(6)), alone, strict=True):
            np.testing.assert_array_equal(found, wanted)
    assert fake.live() == {"stream": 1, "module": 1, "context": 1}
