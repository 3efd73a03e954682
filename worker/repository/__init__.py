"""The repository into a guest: fetched once into a bare mirror, one commit of it packed, unpacked in the guest.

No git ever checks anything out on the host, and no credential or network goes into the guest.
"""

from worker.repository.into_guest import clone_into
from worker.repository.prepared import PreparedRepo
from worker.repository.repositories import Repositories

__all__ = ["PreparedRepo", "Repositories", "clone_into"]
