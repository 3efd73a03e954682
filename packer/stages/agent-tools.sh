#!/bin/sh
# The coding agents and what they work with. Their programs were fetched and checked against their pins by the builder.
# shellcheck source=packer/stages/lib.sh
. "$(dirname "$0")/lib.sh"

for part in claude opencode pi crush bd; do
    if wanted "$part"; then put_tool "$part" "bin/$part"; fi
done

# qmd has some hundred dependencies: npm puts them where the lock file says, and runs the scripts of none but the one
# whose database is compiled here (its own script would download it from elsewhere).
if wanted qmd; then
    mkdir -p /opt/tatin/tools/qmd
    cp "$TATIN_BUILD"/files/qmd/package.json "$TATIN_BUILD"/files/qmd/package-lock.json /opt/tatin/tools/qmd/
    (
        cd /opt/tatin/tools/qmd
        export HOME=/root PATH="/opt/tatin/bin:$PATH"
        npm ci --ignore-scripts --no-audit --no-fund
        if [ -d node_modules/better-sqlite3 ]; then
            npm rebuild better-sqlite3 --build-from-source --nodedir=/opt/tatin/tools/node
        fi
    )
    printf '#!/bin/sh\nexec /opt/tatin/tools/qmd/node_modules/.bin/qmd "$@"\n' >/opt/tatin/bin/qmd
    chmod 755 /opt/tatin/bin/qmd
fi
