"""The commands of `holdfast-cloud`. What they need is imported when they run, so that `--help` is quick.

All but `run` and `init` work on the database directly, beside a running receiver or without one.
"""
