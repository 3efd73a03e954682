"""Attacks of tests/attacks whose answer may differ where the guest has a kernel and a root of its own: the same tests,
from a virtual machine."""
