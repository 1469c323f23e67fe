"""What this machine can be told."""


def keep_memory() -> bool:
    """Let glibc keep freed memory instead of giving it back; whether it could be asked.

    Training frees and asks for the same tensors at every step; given back and fetched again they
    cost page faults, up to a quarter of the time at some MiB.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    trim, pad, mmaps = -1, -2, -4  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX of malloc.h
    return bool(mallopt(mmaps, 0) and mallopt(trim, 2**31 - 1) and mallopt(pad, 2**28))
