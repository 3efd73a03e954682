#!/bin/sh
# Tries every part as a job would call it, writes down what the image holds, and takes out what no two machines may share.
# shellcheck source=packer/stages/lib.sh
. "$(dirname "$0")/lib.sh"

chown -R agent:agent "$agent_home"
rm -f /usr/sbin/policy-rc.d

# say_version PART COMMAND...: one line of the manifest, PART<tab>TOOL<tab>ANSWER; a tool that does not answer stops the
# build.
answers=$(mktemp)
said=$(mktemp)
say_version() {
    part=$1
    shift
    if [ "$part" != system ] && ! wanted "$part"; then
        printf '%s\t\t\n' "$part" >>"$answers"
        return
    fi
    if ! (cd / && as_agent timeout 120 "$@") </dev/null >"$said" 2>"$said.errors"; then
        say "The tool '$1' of the part '$part' does not answer '$*': $(cat "$said" "$said.errors")" >&2
        exit 1
    fi
    printf '%s\t%s\t%s\n' "$part" "$1" "$(head -n 1 "$said" | tr '\t' ' ')" >>"$answers"
}

while read -r part command; do
    case "$part" in
    '' | '#'*) ;;
    *)
        # shellcheck disable=SC2086 # a command with its arguments
        say_version "$part" $command
        ;;
    esac
done <"$(dirname "$0")/tools.txt"

dpkg-query -W >/opt/tatin/packages.txt
python3 - "$answers" <<'END' >/opt/tatin/image.json
import json, platform, sys

parts, tools = {}, {}
for line in open(sys.argv[1]):
    part, tool, answer = line.rstrip("\n").split("\t")
    if tool:
        tools[tool] = answer
    if part != "system":
        parts.setdefault(part, answer if tool else None)
with open("/etc/debian_version") as file:
    debian = file.read().strip()
found = {"format": 1, "debian": debian, "arch": platform.machine(), "parts": parts, "tools": tools}
print(json.dumps(found, indent=1))
END

# No password opens anything; the base image of a Mac has a user with a known one.
passwd --lock root >/dev/null
if id admin >/dev/null 2>&1; then userdel --remove --force admin; fi

# Each machine draws these anew.
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id /var/lib/systemd/random-seed
: >/etc/machine-id

apt-get clean
rm -rf /var/lib/apt/lists/* /tmp/* /var/tmp/* ~root/.npm ~root/.cache "$agent_home/.cache"
