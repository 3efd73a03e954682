"""Tatin's shared and client side: job files, records, the queue, the command line, reports.

Importing this package reads no environment and starts nothing. It never imports ``worker``.
"""

__version__ = "0.1.0"
