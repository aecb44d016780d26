"""Drop-in forms for programs written for other libraries: `diffusers`, `k_diffusion`.

Neither module imports torch or diffusers; both take what the caller has already imported.
"""
