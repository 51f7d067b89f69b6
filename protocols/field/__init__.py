"""To devices: the driver contract and its implementations, one file each."""
