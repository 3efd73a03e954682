#!/bin/sh
# Bun, and bunx under its own name.
# shellcheck source=packer/stages/lib.sh
. "$(dirname "$0")/lib.sh"

wanted bun || exit 0
put_tool bun bin/bun
printf '#!/bin/sh\nexec /opt/tatin/tools/bun/bin/bun x "$@"\n' >/opt/tatin/bin/bunx
chmod 755 /opt/tatin/bin/bunx
