# shellcheck shell=sh
# Shared by the stages: sourced, never run. They run as root inside the machine that becomes the image, and end at the
# first failure. What the builder wants and where its files are:
#
#   TATIN_PARTS   the parts that go in, with a space between; a part that is not named is left out and said so
#   TATIN_BUILD   the builder's folder, to be read only: tools/<part> (programs at their pinned versions, checked), files
#                 (what else a part needs) and ca (certificates). The builder takes it away itself.

set -eu
: "${TATIN_PARTS?}" "${TATIN_BUILD?}"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
# shellcheck disable=SC2034 # used by the stages
agent_home=/home/agent

say() { printf '%s\n' "$*"; }

# wanted PART: whether the builder asked for it.
wanted() {
    case " $TATIN_PARTS " in
    *" $1 "*) return 0 ;;
    *) return 1 ;;
    esac
}

apt_install() { apt-get install -y --no-install-recommends "$@"; }

# put_tool PART PROGRAM...: copies a fetched part to its place and makes each of its programs a command. A wrapper, not a
# link: some of them look for their other files beside the name by which they were called.
put_tool() {
    part=$1
    shift
    mkdir -p /opt/tatin/tools /opt/tatin/bin
    rm -rf "/opt/tatin/tools/$part"
    cp -a "$TATIN_BUILD/tools/$part" "/opt/tatin/tools/$part"
    chown -R root:root "/opt/tatin/tools/$part"
    for program in "$@"; do
        printf '#!/bin/sh\nexec "/opt/tatin/tools/%s/%s" "$@"\n' "$part" "$program" >"/opt/tatin/bin/${program##*/}"
        chmod 755 "/opt/tatin/bin/${program##*/}"
    done
}

as_agent() { runuser -u agent -- env -i HOME="$agent_home" USER=agent PATH="$(guest_path)" LANG=C.UTF-8 "$@"; }

guest_path() { sed -n 's/^PATH="\(.*\)"$/\1/p' /etc/environment; }
