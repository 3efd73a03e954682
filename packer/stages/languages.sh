#!/bin/sh
# Languages: Python, Go, Ruby and Rust as Debian has them, Node.js and mise at their pins. mise is for the versions that a
# repository asks for; what an agent calls without asking is there already.
# shellcheck source=packer/stages/lib.sh
. "$(dirname "$0")/lib.sh"

if wanted python; then apt_install python3-dev python3-pip python3-venv; fi
if wanted go; then apt_install golang-go; fi
if wanted ruby; then apt_install ruby ruby-dev bundler; fi
if wanted rust; then apt_install rustc cargo; fi

if wanted node; then
    put_tool node bin/node
    for name in npm npx; do
        printf '#!/bin/sh\nexec /opt/tatin/tools/node/bin/node /opt/tatin/tools/node/lib/npm/bin/%s-cli.js "$@"\n' "$name" \
            >"/opt/tatin/bin/$name"
        chmod 755 "/opt/tatin/bin/$name"
    done
fi

if wanted mise; then
    put_tool mise bin/mise
    # The shims' folder is on the PATH; what a person's shell needs beside it.
    # shellcheck disable=SC2016 # it is for that shell to expand
    for shell in bash zsh; do
        printf 'command -v mise >/dev/null && eval "$(mise activate %s)"\n' "$shell" >>"$agent_home/.${shell}rc"
    done
fi
