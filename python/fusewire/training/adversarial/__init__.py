"""Adversarial training: the loop, its two moves, and what it leaves to look at."""
