"""Complete models, one folder per kind."""
