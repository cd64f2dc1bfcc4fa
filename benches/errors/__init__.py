"""Errors beside PyTorch's on random inputs: `python -m benches.errors --help`."""
