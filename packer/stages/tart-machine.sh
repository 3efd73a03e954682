#!/bin/sh
# What only the Tart image needs: the guest agent as the user that stays, and addresses that a host can find by MAC.
# Not tried on a Mac.
# shellcheck source=packer/stages/lib.sh
. "$(dirname "$0")/lib.sh"

# The worker's first contact is `tart exec`. The base runs the agent as admin, whom finalize.sh removes, and not again
# when it has ended.
systemctl cat tart-guest-agent.service >/dev/null
mkdir -p /etc/systemd/system/tart-guest-agent.service.d
printf '[Service]\nUser=agent\nRestart=always\nRestartSec=1\n' >/etc/systemd/system/tart-guest-agent.service.d/tatin.conf

# A lease by MAC, not by the machine's id: every clone has a MAC of its own.
if [ -d /etc/netplan ]; then grep -rqs 'dhcp-identifier: *mac' /etc/netplan; fi

# Keys come with the first contact, so the server may start late.
systemctl enable ssh.service >/dev/null 2>&1
systemctl disable ssh.socket >/dev/null 2>&1 || true
mkdir -p /etc/systemd/system/ssh.service.d
printf '[Unit]\nConditionPathExists=/etc/ssh/ssh_host_ed25519_key\n' >/etc/systemd/system/ssh.service.d/tatin.conf
