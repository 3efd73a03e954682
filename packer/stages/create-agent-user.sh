#!/bin/sh
# The user that everything of a job runs as: no password, sudo without one, work/ in its home.
# shellcheck source=packer/stages/lib.sh
. "$(dirname "$0")/lib.sh"

# Its shell for SSH commands reads no file that an agent could have written; `tatin ssh` starts bash.
id agent >/dev/null 2>&1 || useradd --create-home --uid 1000 --user-group --shell /bin/sh agent
usermod --lock --shell /bin/sh agent
printf 'agent ALL=(ALL:ALL) NOPASSWD: ALL\nDefaults:agent !requiretty\n' >/etc/sudoers.d/tatin
chmod 440 /etc/sudoers.d/tatin
visudo -cqf /etc/sudoers.d/tatin

install -d -o agent -g agent -m 755 "$agent_home" "$agent_home/work" "$agent_home/.local" "$agent_home/.local/bin"
echo 'd /run/tatin 0755 agent agent' >/etc/tmpfiles.d/tatin.conf

# Keys only, and only those that the worker put where root alone writes.
mkdir -p /etc/ssh/sshd_config.d /etc/tatin/authorized_keys
cat >/etc/ssh/sshd_config.d/tatin.conf <<'END'
HostKey /etc/ssh/ssh_host_ed25519_key
AuthenticationMethods publickey
AuthorizedKeysFile /etc/tatin/authorized_keys/%u
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
AllowUsers agent
AllowAgentForwarding no
X11Forwarding no
AllowTcpForwarding remote
PermitTunnel no
GatewayPorts no
MaxSessions 500
UseDNS no
PrintMotd no
PrintLastLog no
LogLevel ERROR
END
