"""Operators: arrays in, arrays out; tensors in, tensors out."""
