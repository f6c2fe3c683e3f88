"""The package's namespace for what stands around a model: so far `utils.data`, as in PyTorch.

This file defines nothing. Read `utils/data/__init__.py` next.
"""
