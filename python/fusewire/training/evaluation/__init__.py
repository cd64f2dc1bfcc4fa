"""How good generated samples are: distances, coverage, modes, and nearest neighbours."""
