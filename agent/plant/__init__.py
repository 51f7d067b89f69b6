"""A configuration's devices, simulated: registers and nodes that move as those of a plant would."""
