"""What training must show, as commands: each writes a record, and goes on where it was stopped."""
