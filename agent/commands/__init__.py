"""The commands of `holdfast`, one file each. What they need is imported when they run, so that `--help` is quick."""
