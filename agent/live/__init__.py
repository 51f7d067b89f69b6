"""What the running agent shows of itself to people: live values and the line, to `holdfast watch` and its own page."""
