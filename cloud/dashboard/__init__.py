"""The operators' page: what gateways and machines are doing, live in a browser. Reads, and changes nothing."""
