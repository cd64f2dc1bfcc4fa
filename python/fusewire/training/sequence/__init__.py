"""Training of models of sequences: one loop, and what each kind of training gives it."""
