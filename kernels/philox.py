"""Standard normal numbers from Philox4x32-10, the same bits as csrc/rng's philox stream.

The arithmetic is csrc/rng/normal_math.h, operation for operation: every fused multiply-add is
written out and the compiler may add none (`fuses_fma` off), so that CPU and GPU agree exactly.
"""

import triton
import triton.language as tl


@triton.jit
def log_unit(u):
    """ln(u) for normal 0 < u <= 1: Cephes' logf."""
    bits = u.to(tl.uint32, bitcast=True)
    # 0x3f3504f3 is sqrt(1/2): the subtraction borrows from the exponent when the mantissa is below.
    exponent = (bits - 0x3F3504F3).to(tl.int32, bitcast=True) >> 23
    e = exponent.to(tl.float32)
    scaled = bits - (exponent.to(tl.uint32, bitcast=True) << 23)
    x = scaled.to(tl.float32, bitcast=True) - 1.0
    square = x * x
    y = tl.fma(x, 7.0376836292e-2, -1.1514610310e-1)
    y = tl.fma(y, x, 1.1676998740e-1)
    y = tl.fma(y, x, -1.2420140846e-1)
    y = tl.fma(y, x, 1.4249322787e-1)
    y = tl.fma(y, x, -1.6668057665e-1)
    y = tl.fma(y, x, 2.0000714765e-1)
    y = tl.fma(y, x, -2.4999993993e-1)
    y = tl.fma(y, x, 3.3333331174e-1)
    y = tl.fma(y * x, square, e * -2.12194440e-4)
    y = tl.fma(-square, 0.5, y)
    return tl.fma(e, 0.693359375, x + y)


@triton.jit
def sine_and_cosine(angle):
    """sin and cos of 0 <= angle < 8192: Cephes' octants."""
    octant = ((angle * 1.27323954473516).to(tl.int32) + 1) & -2
    count = octant.to(tl.float32)
    x = tl.fma(count, -0.78515625, angle)
    x = tl.fma(count, -2.4187564849853515625e-4, x)
    x = tl.fma(count, -3.77489497744594108e-8, x)
    z = x * x
    c = tl.fma(z, 2.443315711809948e-5, -1.388731625493765e-3)
    c = tl.fma(c, z, 4.166664568298827e-2)
    c = tl.fma(c * z, z, -(z * 0.5)) + 1.0
    s = tl.fma(z, -1.9515295891e-4, 8.3321608736e-3)
    s = tl.fma(s, z, -1.6666654611e-1)
    s = tl.fma(s * z, x, x)
    is_swapped = (octant & 2) != 0
    sine = tl.where(is_swapped, c, s)
    cosine = tl.where(is_swapped, s, c)
    sine = tl.where((octant & 4) != 0, -sine, sine)
    cosine = tl.where(((octant + 2) & 4) != 0, -cosine, cosine)
    return sine, cosine


@triton.jit
def box_muller(first, second):
    """Two normals of two Philox words: 31 bits of radius and 24 of angle."""
    u1 = tl.fma(
        (first >> 1).to(tl.int32).to(tl.float32), 4.656612873077393e-10, 2.3283064365386963e-10
    )
    u2 = (second >> 8).to(tl.int32).to(tl.float32) * 5.9604644775390625e-08
    radius = tl.sqrt_rn(log_unit(u1) * -2.0)
    sine, cosine = sine_and_cosine(u2 * 6.283185307179586)
    # The addition of zero turns -0 into +0, as on the CPU.
    return radius * cosine + 0.0, radius * sine + 0.0


@triton.jit
def normals(seed, draw, counter):
    """The four normals of each counter: elements i, i + 8, i + 16, i + 24 of a group of 32.

    seed, draw: uint64; counter: int32, not negative.
    """
    zero = counter * 0
    low = (draw & 0xFFFFFFFF).to(tl.uint32) + zero.to(tl.uint32)
    high = (draw >> 32).to(tl.uint32) + zero.to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(seed, counter.to(tl.uint32), zero.to(tl.uint32), low, high)
    z0, z1 = box_muller(w0, w1)
    z2, z3 = box_muller(w2, w3)
    return z0, z1, z2, z3
