"""The work of an attempt's steps, a file each. ``worker/runner.py`` has their order; ``Parts`` is what they share."""
