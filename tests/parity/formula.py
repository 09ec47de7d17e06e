"""Tensors from a formula, so that fixtures need no stored weights.

The Rust twin is tests/src/formula.rs; both give the same bits. For element i (row-major) of the tensor `name`:

    h = finalise(fnv1a64(name) + i * 0x9e3779b97f4a7c15)       64-bit integers, wrapping
    u = (h >> 40) / 2^24                                       in [0, 1), exact in f32

where fnv1a64 runs over the name's UTF-8 bytes and finalise is SplitMix64's output function. The value then depends on
the last part of the name and on the shape; it is computed in f64 and rounded once to f32:

    running_var, one-dimensional weight (batch norm)   0.5 + u
    running_mean, bias                                 u - 0.5
    num_batches_tracked                                0
    weight of 2 or 4 dimensions                        (2u - 1) * (sqrt(3) * gain / sqrt(fan_in))
    anything else (network inputs)                     (2u - 1) * sqrt(3)

fan_in is the product of all dimensions but the first. A weight has variance gain^2 / fan_in; `gain` is a property of
the fixture, chosen so that logits neither explode nor forget the input.
"""
import math

import numpy as np
import torch

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def fnv1a64(data: bytes) -> int:
    """FNV-1a, 64 bits."""
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def uniform(name: str, count: int) -> np.ndarray:
    """`count` values of [0, 1) in f64, each a multiple of 2^-24."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a64(name.encode())) + np.arange(count, dtype=np.uint64) * GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2.0**24


def values(name: str, shape, gain: float) -> np.ndarray:
    """The f32 tensor of that name and shape."""
    shape = tuple(shape)
    u = uniform(name, math.prod(shape))
    kind = name.rsplit(".", 1)[-1]
    if kind == "num_batches_tracked":
        x = np.zeros_like(u)
    elif kind == "running_var" or (kind == "weight" and len(shape) == 1):
        x = 0.5 + u
    elif kind in ("running_mean", "bias"):
        x = u - 0.5
    elif kind == "weight":
        x = (2.0 * u - 1.0) * (math.sqrt(3.0) * gain / math.sqrt(math.prod(shape[1:])))
    else:
        x = (2.0 * u - 1.0) * math.sqrt(3.0)
    return x.astype(np.float32).reshape(shape)


def fill(net: torch.nn.Module, gain: float, names: dict | None = None) -> torch.nn.Module:
    """Overwrites every parameter and buffer of `net` with the formula's values, under their own or other names."""
    names = names or {k: k for k in net.state_dict()}
    net.load_state_dict({k: torch.from_numpy(values(names[k], v.shape, gain)).to(v.dtype)
                         for k, v in net.state_dict().items()})
    return net


def images(batch: int, height: int, width: int) -> torch.Tensor:
    """The input of every fixture: the tensor named `images`, [batch, 3, height, width], f32."""
    return torch.from_numpy(values("images", (batch, 3, height, width), 1.0))
