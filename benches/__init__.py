"""Speed of the operators beside their rivals: `make bench`."""
