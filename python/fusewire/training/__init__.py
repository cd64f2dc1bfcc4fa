"""One plain loop per kind of training, and the run directory, checkpoints and logs they share."""
