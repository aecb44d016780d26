"""The runs whose trajectories `make_sampler_goldens.py` records: case, noise and network."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

SHAPE = (2, 3, 2, 2)
STEPS = (1, 2, 5, 20)
FEW_STEPS = (1, 3, 10)

# Stable Diffusion's own betas; the classes' defaults are other ones.
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SPACINGS = ("leading", "linspace", "trailing")
DPM_SOLVERS = ((1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint"), (3, "heun"))


class Case(NamedTuple):
    """One run. `source` is a class of diffusers or a function of k-diffusion.

    Of the options of a class `mu` belongs to set_timesteps, the others to every step.
    """

    source: str
    config: dict[str, Any]
    steps: int
    options: dict[str, Any]

    @property
    def name(self) -> str:
        facts = [f"{key}={value}" for key, value in {**self.config, **self.options}.items()]
        return "-".join([self.source, *facts, str(self.steps)]).replace(" ", "")


def network(x: Any, noise_level: Any, tanh: Any, cos: Any) -> Any:
    """A smooth stand-in for a U-Net, in the arithmetic of whoever calls: |output| < 1.2."""
    return 0.9 * tanh(0.8 * x) + 0.3 * cos(0.01 * noise_level + 2.0 * tanh(x))


def initial_noise() -> np.ndarray:
    """float32 SHAPE: the unit normal start of every run."""
    return np.random.default_rng(7).standard_normal(SHAPE).astype(np.float32)


class Draws:
    """The same sequence of unit normal arrays for whoever runs a case."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(11)

    def __call__(self) -> np.ndarray:
        return self._rng.standard_normal(SHAPE).astype(np.float32)


def diffusers_cases() -> list[Case]:
    """Every class, spacing and option that textopia_fast supports."""
    runs: list[tuple[str, dict[str, Any], dict[str, Any]]] = []

    def add(source: str, config: dict[str, Any] | None = None, **options: Any) -> None:
        runs.append((f"{source}Scheduler", {**SD, **(config or {})}, options))

    plain = {"clip_sample": False}
    v = {"prediction_type": "v_prediction"}
    zero_snr = {**v, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    for spacing in SPACINGS:
        spaced = {"timestep_spacing": spacing, "steps_offset": 1}
        for source in ("EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete"):
            add(source, spaced)
        add("DPMSolverMultistep", spaced)
        add("DPMSolverMultistep", {**spaced, "final_sigmas_type": "sigma_min"})
        for source in ("EulerDiscrete", "HeunDiscrete", "DPMSolverMultistep"):
            add(source, {**spaced, "use_karras_sigmas": True})
        add("DDPM", {**spaced, **plain})
        add("DDIM", {**spaced, **plain, "set_alpha_to_one": False})
        add("DDIM", {**spaced, **plain}, eta=1.0)
    for source in ("EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "DPMSolverMultistep"):
        add(source, v)
    for source in ("DDIM", "DDPM"):
        add(source, {**plain, **v})
        add(source, {**plain, **zero_snr})
        add(source, {**plain, "prediction_type": "sample"})
        add(source, {"clip_sample": True, "clip_sample_range": 0.7})
    for source in ("EulerDiscrete", "EulerAncestralDiscrete", "DPMSolverMultistep"):
        add(source, zero_snr)
    for source in ("EulerDiscrete", "HeunDiscrete", "DPMSolverMultistep"):
        add(source, {"use_exponential_sigmas": True})
        add(source, {"prediction_type": "sample"})
    add("EulerDiscrete", {"final_sigmas_type": "sigma_min"})
    add("EulerDiscrete", {"interpolation_type": "log_linear"})
    add("EulerDiscrete", {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 10.0})
    add("EulerDiscrete", {**v, "timestep_type": "continuous", "use_karras_sigmas": True})
    add("HeunDiscrete", {"clip_sample": True, "clip_sample_range": 0.7})
    add("DDPM", {**plain, "variance_type": "fixed_large"})
    add("DDIM", plain, eta=0.5)
    add("DPMSolverMultistep", {"euler_at_final": True, "final_sigmas_type": "sigma_min"})
    add("DPMSolverMultistep", {"lower_order_final": False, "final_sigmas_type": "sigma_min"})
    add("DPMSolverMultistep", {"solver_order": 1})
    cosine = {"beta_schedule": "squaredcos_cap_v2", "beta_start": 0.0001, "beta_end": 0.02}
    add("DPMSolverMultistep", {**cosine, "lambda_min_clipped": -5.1})
    add("DDIM", {**cosine, **plain})
    defaults = ("DDIM", "DDPM", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete")
    cases = [Case(source, config, n, options) for source, config, options in runs for n in STEPS]
    for source in (*defaults, "DPMSolverMultistep"):
        cases.append(Case(f"{source}Scheduler", {}, 5, {}))
    trained = {"trained_betas": [0.002 * (i + 1) for i in range(40)], "num_train_timesteps": 40}
    cases.append(Case("EulerDiscreteScheduler", trained, 5, {}))
    return cases + multistep_cases()


def multistep_cases() -> list[Case]:
    """The classes that remember more than one network output."""
    cases: list[Case] = []

    def add(source: str, steps: tuple[int, ...] = FEW_STEPS, **config: Any) -> None:
        cases.extend(Case(f"{source}Scheduler", {**SD, **config}, n, {}) for n in steps)

    for spacing in SPACINGS:
        spaced = {"timestep_spacing": spacing, "steps_offset": 1}
        add("PNDM", skip_prk_steps=True, **spaced)
        add(
            "PNDM", (4, 7, 12), **spaced
        )  # diffusers needs four timesteps for its Runge-Kutta steps
    for prediction in ("epsilon", "v_prediction"):
        kind = {"prediction_type": prediction, "set_alpha_to_one": True}
        add("PNDM", skip_prk_steps=True, **kind)
        add("PNDM", (4, 7), **kind)
    cases.append(Case("PNDMScheduler", {}, 5, {}))
    for source in ("LMSDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete"):
        for spacing in SPACINGS:
            add(source, timestep_spacing=spacing, steps_offset=1)
        add(source, use_karras_sigmas=True)
        add(source, use_exponential_sigmas=True)
        add(source, prediction_type="v_prediction")
        cases.append(Case(f"{source}Scheduler", {}, 5, {}))
    for source in ("EulerDiscrete", "KDPM2Discrete"):
        add(source, (1, 7), use_beta_sigmas=True)
    cosine = {"beta_schedule": "squaredcos_cap_v2", "beta_start": 0.0001, "beta_end": 0.02}
    open_end = {"final_sigmas_type": "sigma_min"}
    add("DPMSolverMultistep", use_lu_lambdas=True)
    for algorithm in ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"):
        for order, solver_type in DPM_SOLVERS[: 3 if algorithm.startswith("sde") else 5]:
            how = {"algorithm_type": algorithm, "solver_order": order, "solver_type": solver_type}
            add("DPMSolverMultistep", (5, 16) if order == 3 else (1, 5), **how, **open_end)
            if algorithm != "sde-dpmsolver":
                add("DPMSolverSinglestep", (1, 6, 7), **how, **open_end)
            if not algorithm.endswith("dpmsolver"):
                add("DPMSolverMultistep", (5,), **how)
                add("DPMSolverSinglestep", (5, 6), **how, lower_order_final=True)
    add("DPMSolverMultistep", (5,), solver_order=3, lower_order_final=False, **open_end)
    add("DPMSolverMultistep", (16,), solver_order=3, euler_at_final=True, **open_end)
    add("DPMSolverMultistep", (5,), algorithm_type="deis", solver_type="logrho", **open_end)
    add("DPMSolverMultistep", (5,), solver_order=3, prediction_type="v_prediction")
    for extra in (
        {"use_karras_sigmas": True},
        {"use_exponential_sigmas": True},
        {"prediction_type": "v_prediction"},
        {**cosine, "lambda_min_clipped": -5.1},
    ):
        add("DPMSolverSinglestep", (6,), **extra)
    cases.append(Case("DPMSolverSinglestepScheduler", {}, 5, {}))
    cases += [Case("LMSDiscreteScheduler", SD, 6, {"order": order}) for order in (1, 2, 3, 5)]
    return cases + predictor_corrector_cases()


def predictor_corrector_cases() -> list[Case]:
    """UniPC, DEIS, and the classes of distilled models."""
    cases: list[Case] = []

    def add(source: str, steps: tuple[int, ...], config: dict[str, Any], **options: Any) -> None:
        cases.extend(Case(f"{source}Scheduler", {**SD, **config}, n, options) for n in steps)

    curves = ("use_karras_sigmas", "use_exponential_sigmas")
    for source in ("UniPCMultistep", "DEISMultistep"):
        for spacing in SPACINGS:
            add(source, (1, 3, 10), {"timestep_spacing": spacing, "steps_offset": 1})
        for curve in curves:
            add(source, (8,), {curve: True})
        for order in (1, 2, 3):
            add(source, (1, 6, 16), {"solver_order": order})
        for kind in ("v_prediction", "sample"):
            add(source, (5,), {"prediction_type": kind})
        cases.append(Case(f"{source}Scheduler", {}, 5, {}))
    add("DEISMultistep", (6,), {"solver_order": 3, "lower_order_final": False})
    add("DEISMultistep", (5,), {"algorithm_type": "dpmsolver++", "solver_type": "midpoint"})
    open_end = {"final_sigmas_type": "sigma_min"}
    for predict_x0 in (True, False):
        for order in (1, 2, 3):
            how = {"predict_x0": predict_x0, "solver_order": order}
            for solver_type in ("bh1", "bh2"):
                add("UniPCMultistep", (1, 7), {**how, "solver_type": solver_type, **open_end})
    add("UniPCMultistep", (7,), {"solver_order": 3, "lower_order_final": False, **open_end})
    add("UniPCMultistep", (7,), {"disable_corrector": [0, 2], "solver_type": "midpoint"})
    zero_snr = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    add("UniPCMultistep", (7,), {**zero_snr, "timestep_spacing": "trailing"})
    add("UniPCMultistep", (5,), {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 9.0})
    for source, options in (("LCM", ({},)), ("TCD", ({"eta": 0.0}, {"eta": 0.3}, {"eta": 1.0}))):
        for option in options:
            add(source, (1, 2, 4, 8), {}, **option)
            add(source, (4, 7), {"original_inference_steps": 33}, **option)
            add(source, (4,), {"prediction_type": "v_prediction"}, **option)
    add("LCM", (1, 4), {"clip_sample": True, "clip_sample_range": 0.7, "timestep_scaling": 0.01})
    add("LCM", (4,), {"prediction_type": "sample"})
    cases.append(Case("LCMScheduler", {}, 4, {}))
    return cases + continuous_cases()


def continuous_cases() -> list[Case]:
    """The classes without a training table."""
    runs: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
        ("FlowMatchEulerDiscrete", {}, (1, 2, 10)),
        ("FlowMatchEulerDiscrete", {"shift": 3.0}, (1, 2, 10)),
        ("FlowMatchEulerDiscrete", {"shift_terminal": 0.1}, (5,)),
        ("FlowMatchEulerDiscrete", {"use_karras_sigmas": True, "shift": 3.0}, (5,)),
        ("FlowMatchEulerDiscrete", {"use_exponential_sigmas": True}, (5,)),
        ("FlowMatchEulerDiscrete", {"use_beta_sigmas": True}, (5,)),
        ("FlowMatchEulerDiscrete", {"stochastic_sampling": True, "shift": 2.0}, (1, 4)),
        ("FlowMatchHeunDiscrete", {}, (1, 2, 6)),
        ("FlowMatchHeunDiscrete", {"shift": 3.0}, (6,)),
        ("EDMEuler", {}, (1, 2, 10)),
        ("EDMEuler", {"sigma_schedule": "exponential", "sigma_max": 20.0}, (1, 6)),
        ("EDMEuler", {"final_sigmas_type": "sigma_min", "rho": 5.0, "sigma_min": 0.02}, (6,)),
        ("FlowMatchLCM", {}, (1, 4)),
        ("FlowMatchLCM", {"shift": 3.0, "use_beta_sigmas": True}, (4,)),
        ("EDMEuler", {"sigma_data": 1.0, "prediction_type": "v_prediction"}, (5,)),
        *(
            ("EDMDPMSolverMultistep", {"algorithm_type": algorithm, **how}, (1, 5, 16))
            for algorithm in ("dpmsolver++", "sde-dpmsolver++")
            for how in ({}, {"solver_order": 1}, {"solver_type": "heun"})
        ),
        ("EDMDPMSolverMultistep", {"solver_order": 3}, (5, 16)),
        ("EDMDPMSolverMultistep", {"sigma_schedule": "exponential"}, (5,)),
        ("EDMDPMSolverMultistep", {"final_sigmas_type": "sigma_min", "rho": 5.0}, (5,)),
        ("EDMDPMSolverMultistep", {"sigma_data": 1.0, "prediction_type": "v_prediction"}, (5,)),
        ("IPNDM", {}, (1, 2, 5, 20)),
    ]
    cases = [
        Case(f"{source}Scheduler", config, n, {}) for source, config, steps in runs for n in steps
    ]
    for source in ("FlowMatchEulerDiscrete", "FlowMatchLCM"):
        for kind in ("exponential", "linear"):
            config = {"use_dynamic_shifting": True, "time_shift_type": kind}
            cases.append(Case(f"{source}Scheduler", config, 4, {"mu": 1.15}))
    return cases + stochastic_cases() + solver_flow_cases()


def stochastic_cases() -> list[Case]:
    """SA-Solver and the two-stage solver of the reverse SDE."""
    cases: list[Case] = []

    def add(source: str, steps: tuple[int, ...] = (5,), **config: Any) -> None:
        cases.extend(Case(f"{source}Scheduler", {**SD, **config}, n, {}) for n in steps)

    for source in ("SASolver", "DPMSolverSDE"):
        for spacing in SPACINGS:
            add(source, (1, 3, 10), timestep_spacing=spacing, steps_offset=1)
        add(source, use_karras_sigmas=True)
        add(source, use_exponential_sigmas=True)
        add(source, prediction_type="v_prediction")
        cases.append(Case(f"{source}Scheduler", {}, 5, {}))
    for algorithm in ("data_prediction", "noise_prediction"):
        for predictor, corrector in ((1, 1), (2, 2), (3, 3), (3, 4), (2, 3), (1, 4)):
            orders = {"predictor_order": predictor, "corrector_order": corrector}
            add("SASolver", (1, 7, 20), algorithm_type=algorithm, **orders)
    add("SASolver", (7,), predictor_order=3, lower_order_final=False)
    add("DPMSolverSDE", use_beta_sigmas=True)
    return cases


def solver_flow_cases() -> list[Case]:
    """Flows on the classes of the variance-preserving solvers."""
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    cases: list[Case] = []

    def add(source: str, steps: tuple[int, ...] = (1, 6), mu: float | None = None, **config: Any):
        options = {} if mu is None else {"mu": mu}
        cases.extend(Case(f"{source}Scheduler", {**flow, **config}, n, options) for n in steps)

    solvers = ("DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep", "UniPCMultistep")
    for source in (*solvers, "SASolver"):
        add(source)
        add(source, (6, 20), flow_shift=3.0)
    for source in solvers:
        add(source, (6,), mu=0.5, use_dynamic_shifting=True)
    add("DPMSolverMultistep", (6,), algorithm_type="sde-dpmsolver++", flow_shift=3.0)
    add("DPMSolverMultistep", (6,), final_sigmas_type="sigma_min")
    add("UniPCMultistep", (6,), final_sigmas_type="sigma_min")
    add("UniPCMultistep", (6,), shift_terminal=0.1, flow_shift=2.0)
    add("UniPCMultistep", (6,), mu=0.8, use_dynamic_shifting=True, time_shift_type="linear")
    return cases


def dpm_fast_cases() -> list[Case]:
    """k-diffusion's sample_dpm_fast, which makes its levels itself; `steps` are network runs."""
    ends = {"sigma_min": 0.03, "sigma_max": 14.6}
    return [
        Case("sample_dpm_fast", ends, n, options)
        for options in ({}, {"eta": 0.6, "s_noise": 0.9})
        for n in (3, 4, 5, 12)
    ]


def k_diffusion_cases() -> list[Case]:
    """k-diffusion's samplers on its own schedules; `config` holds the schedule."""
    schedules = (
        {"schedule": "karras", "sigma_min": 0.03, "sigma_max": 14.6},
        {"schedule": "exponential", "sigma_min": 0.03, "sigma_max": 14.6},
        {"schedule": "polyexponential", "sigma_min": 0.03, "sigma_max": 14.6, "rho": 1.5},
        {"schedule": "vp"},
    )
    runs: list[tuple[str, dict[str, Any]]] = [
        ("euler", {}),
        ("euler", {"s_churn": 2.0, "s_noise": 1.01}),
        ("euler_ancestral", {}),
        ("euler_ancestral", {"eta": 0.5, "s_noise": 0.9}),
        ("heun", {}),
        ("heun", {"s_churn": 2.0}),
        ("dpmpp_2m", {}),
    ]
    first, *others = schedules
    cases = [Case(f"sample_{name}", first, n, options) for name, options in runs for n in STEPS]
    cases += [Case("sample_dpmpp_2m", schedule, n, {}) for schedule in others for n in STEPS]
    more: list[tuple[str, dict[str, Any]]] = [
        *(("lms", {"order": order}) for order in (1, 2, 3, 4, 5)),
        ("dpm_2", {}),
        ("dpm_2", {"s_churn": 2.0, "s_noise": 1.01}),
        *((name, {}) for name in ("dpm_2_ancestral", "dpmpp_2s_ancestral")),
        *((name, {"eta": 0.5}) for name in ("dpm_2_ancestral", "dpmpp_2s_ancestral")),
        ("dpmpp_sde", {}),
        ("dpmpp_sde", {"eta": 0.5, "s_noise": 0.9, "r": 0.3}),
        ("dpmpp_sde", {"eta": 0.0}),
        ("dpmpp_2m_sde", {}),
        ("dpmpp_2m_sde", {"solver_type": "heun"}),
        ("dpmpp_2m_sde", {"eta": 0.5, "s_noise": 0.9, "solver_type": "heun"}),
        ("dpmpp_2m_sde", {"eta": 0.0}),
        ("dpmpp_3m_sde", {}),
        ("dpmpp_3m_sde", {"eta": 0.5, "s_noise": 0.9}),
        ("dpmpp_3m_sde", {"eta": 0.0}),
    ]
    for name, options in more:
        # k-diffusion's multistep SDE samplers fail where the only step goes to 0
        few = STEPS[1:] if name in ("dpmpp_2m_sde", "dpmpp_3m_sde") else STEPS
        cases += [Case(f"sample_{name}", first, n, options) for n in few]
    return cases
