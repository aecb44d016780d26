"""GPU kernels in Triton, compiled ahead of time and launched from C++ (csrc/cuda).

One kernel per file: what it computes and what bounds it, a NumPy reference, the kernel, its
variants and a check. `manifest.py` lists all variants, `build.py` compiles them without a GPU.
Needs triton; nothing here is imported by the package.
"""
