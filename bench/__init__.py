"""What Holdfast costs, measured on this machine: `make bench`."""
