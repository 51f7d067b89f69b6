"""The gateway's only queue: the contract and its implementations, one file each."""
