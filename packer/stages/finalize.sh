#!/bin/sh
# Tries every part as a job would call it, writes down what the image holds, and takes out what no two machines may share.
# shellcheck source=packer/stages/lib.sh
. "$(dirname "$0")/lib.sh"

chown -R agent:agent "$agent_home"
rm -f /usr/sbin/policy-rc.d

# say_version PART COMMAND...: one line of the manifest; a part that does not answer stops the build.
versions=$TATIN_BUILD/versions
: >"$versions"
say_version() {
    part=$1
    shift
    if ! wanted "$part"; then
        printf '%s\tmissing\t\n' "$part" >>"$versions"
        return
    fi
    if ! said=$(cd / && as_agent timeout 120 "$@" 2>&1); then
        say "The part '$part' does not answer '$*': $said" >&2
        exit 1
    fi
    printf '%s\tthere\t%s\n' "$part" "$(printf '%s' "$said" | head -n 1 | tr '\t' ' ')" >>"$versions"
}

say_version build-essential gcc --version
say_version python python3 --version
say_version go go version
say_version ruby ruby --version
say_version rust rustc --version
say_version node node --version
say_version mise mise --version
say_version bun bun --version
say_version claude claude --version
say_version opencode opencode --version
say_version pi pi --version
say_version crush crush --version
say_version bd bd --version
say_version qmd qmd --version

dpkg-query -W >/opt/tatin/packages.txt
python3 - "$versions" <<'END' >/opt/tatin/image.json
import json, platform, sys

parts = {}
for line in open(sys.argv[1]):
    part, state, version = line.rstrip("\n").split("\t")
    parts[part] = version if state == "there" else None
with open("/etc/debian_version") as file:
    debian = file.read().strip()
print(json.dumps({"format": 1, "debian": debian, "arch": platform.machine(), "parts": parts}, indent=1))
END

# No password opens anything; the base image of a Mac has a user with a known one.
passwd --lock root >/dev/null
if id admin >/dev/null 2>&1; then userdel --remove --force admin; fi

# Each machine draws these anew.
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id /var/lib/systemd/random-seed
: >/etc/machine-id

apt-get clean
rm -rf /var/lib/apt/lists/* /tmp/* /var/tmp/* ~root/.npm ~root/.cache "$agent_home/.cache" "$TATIN_BUILD"
