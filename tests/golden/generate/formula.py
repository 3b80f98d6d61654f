"""Numbers that any program can repeat, so that neither weights nor data need to be stored."""

import numpy
import torch


def bits(name, count):
    """The first `count` outputs of splitmix64 from the FNV-1a hash of the name."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = ((state ^ byte) * 0x100000001B3) % 2**64
    z = numpy.uint64(state) + (numpy.arange(count, dtype=numpy.uint64) + numpy.uint64(1)) * numpy.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return z ^ (z >> numpy.uint64(31))


def uniform(name, shape, bound):
    """Float32 values in [-bound, bound), equal to the bit everywhere: only the last product rounds."""
    share = (bits(name, int(numpy.prod(shape))) >> numpy.uint64(40)).astype(numpy.float32) / numpy.float32(2**23) - numpy.float32(1)
    return torch.from_numpy(share * numpy.float32(bound)).reshape(shape)


def integers(name, shape, below):
    values = bits(name, int(numpy.prod(shape))) % numpy.uint64(below)
    return torch.from_numpy(values.astype(numpy.int64)).reshape(shape)


def order(count, seed):
    """A permutation: Fisher and Yates's shuffle driven by splitmix64."""
    state, indices = seed, list(range(count))
    for last in range(count - 1, 0, -1):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        other = (z ^ (z >> 31)) % (last + 1)
        indices[last], indices[other] = indices[other], indices[last]
    return indices
