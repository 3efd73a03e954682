#!/bin/sh
# What only the QEMU image needs: a kernel that is started directly, and a first boot that takes its keys from the seed
# disk. (A Tart machine has its own kernel, and gets its keys over `tart exec`.)
# shellcheck source=packer/stages/lib.sh
. "$(dirname "$0")/lib.sh"

# The initial memory disk holds what finds the root disk and nothing else: an emulated machine unpacks it slowly.
mkdir -p /etc/initramfs-tools/conf.d
printf 'MODULES=list\nCOMPRESS=lz4\nCOMPRESSLEVEL=1\n' >/etc/initramfs-tools/conf.d/tatin
apt_install lz4 initramfs-tools
printf 'virtio_pci\nvirtio_mmio\nvirtio_blk\next4\n' >/etc/initramfs-tools/modules
apt_install "linux-image-cloud-$(dpkg --print-architecture)" e2fsprogs udev systemd-sysv kmod netbase
printf 'virtio_net\nvirtio_rng\nvmgenid\n' >/etc/modules-load.d/tatin.conf

echo '/dev/vda / ext4 rw,noatime,errors=remount-ro 0 0' >/etc/fstab
echo tatin >/etc/hostname
printf '127.0.0.1 localhost tatin\n::1 localhost\n' >/etc/hosts

# QEMU's user network, without asking its DHCP; no name server is there unless a job's network gives one (the builder
# leaves /etc/resolv.conf empty).
apt-get purge -y --auto-remove ifupdown isc-dhcp-client >/dev/null 2>&1 || true
mkdir -p /etc/systemd/network
cat >/etc/systemd/network/10-tatin.network <<'END'
[Match]
Driver=virtio_net

[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
LinkLocalAddressing=no
IPv6AcceptRA=no
ConfigureWithoutCarrier=yes

[Link]
RequiredForOnline=no
END
systemctl enable systemd-networkd >/dev/null 2>&1
systemctl disable systemd-networkd-wait-online >/dev/null 2>&1 || true

# The seed disk is a tar of what makes this machine the worker's: its host key and the worker's own key.
cat >/etc/systemd/system/tatin-seed.service <<'END'
[Unit]
Description=Keys from Tatin's seed disk
ConditionPathExists=/dev/vdb
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
Before=ssh.service sshd.service
After=local-fs.target systemd-udevd.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/tar -xf /dev/vdb -C / --no-same-owner

[Install]
WantedBy=multi-user.target
RequiredBy=ssh.service
END
systemctl enable tatin-seed.service ssh.service >/dev/null 2>&1
systemctl disable ssh.socket >/dev/null 2>&1 || true
systemctl mask systemd-timesyncd getty@tty1 serial-getty@ttyS0 systemd-pcrphase systemd-firstboot ldconfig.service \
    >/dev/null 2>&1 || true
systemctl set-default multi-user.target >/dev/null 2>&1

rm -rf /boot/tatin && mkdir /boot/tatin
kernel=$(find /boot -name 'vmlinuz-*' | sort | tail -n 1)
cp "$kernel" /boot/tatin/kernel
cp "/boot/initrd.img-${kernel#/boot/vmlinuz-}" /boot/tatin/initrd
