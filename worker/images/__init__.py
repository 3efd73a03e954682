"""Images: what virtual machines are made from. ``store`` knows those of a home, ``build_qemu`` makes one."""
