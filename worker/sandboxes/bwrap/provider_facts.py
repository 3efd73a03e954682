"""What bwrap can promise: not a machine, and said so everywhere."""

from worker.sandboxes.base import Capabilities

CAPABILITIES = Capabilities(
    separate_kernel=False, egress_control=True, survives_worker=False, snapshot=False, sudo=False
)
