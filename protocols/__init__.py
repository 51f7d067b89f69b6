"""What both programs speak: `field` to devices, `uplink` between the two, `program` how both behave as programs.

Imports nothing of ours outside itself; a linter checks that.
"""
