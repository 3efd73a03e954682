"""A file of Tatin's in the guest that cloning writes and collecting reads."""

BASE_INDEX_NAME = "base.index"
"""git's index as it was right after the clone: what did not change since need not be read again."""
