"""What training must show, each a command that can be stopped and goes on where it stood."""
