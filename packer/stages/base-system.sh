#!/bin/sh
# The system: what every image has, whatever parts it is built with.
# shellcheck source=packer/stages/lib.sh
. "$(dirname "$0")/lib.sh"

# Services are not started while the image is made.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d

apt-get update
apt_install ca-certificates curl git htop iproute2 jq less locales openssh-server procps psmisc python3 sudo tmux tree \
    unzip vim wget xz-utils zsh
if wanted build-essential; then apt_install build-essential pkg-config ripgrep fd-find fzf; fi

# Extra certificate authorities, for people behind an inspecting proxy (`tatin image build --ca-certificate`).
if [ -d "$TATIN_BUILD/ca" ]; then
    cp "$TATIN_BUILD"/ca/*.crt /usr/local/share/ca-certificates/
    update-ca-certificates
fi

# Non-interactive SSH commands read this (pam_env); worker/sandboxes/remote.py gives its programs the same.
cat >/etc/environment <<'END'
PATH="/home/agent/.local/bin:/home/agent/.local/share/mise/shims:/opt/tatin/bin:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
LANG=C.UTF-8
END

# What wakes up by itself would take time from the agent, and packages are the image's business.
systemctl mask apt-daily.timer apt-daily-upgrade.timer man-db.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer \
    >/dev/null 2>&1
