"""The agent's own page: the line from the PLC to the receiver, and the live values. Needs the extra `page`."""
