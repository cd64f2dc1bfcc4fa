"""Fast attention and recurrent networks on CPUs, and small self-supervised models."""
