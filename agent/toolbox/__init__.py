"""What the technician's commands work with: interpreting registers, reckoning, tag lists, edits of the file. Pure."""
