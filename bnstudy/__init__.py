"""Where Batch Normalization breaks, why, and what to use instead."""

__version__ = "0.1.0"
