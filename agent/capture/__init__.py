"""Recording what goes over the line to a device, and serving a recording as a device."""
