#!/usr/bin/env bash
# Builds the guide into target/site by MkDocs, in the environment .site/, which the first run makes. Cargo's
# documentation of the crate is put beside it as api/ if it is in target/doc; `make docs-site` makes both.
set -euo pipefail
cd "$(dirname "$0")/.."

environment=.site
if ! cmp -s scripts/site-requirements.txt "$environment/requirements.txt"; then
    ./scripts/venv.sh "$environment"
    "$environment/bin/python" -I -m pip install --quiet --disable-pip-version-check -r scripts/site-requirements.txt
    cp scripts/site-requirements.txt "$environment/requirements.txt"
fi

python3 scripts/site.py stage target/site-pages
# The theme prints a notice about MkDocs 2 otherwise, which is not in use here.
NO_MKDOCS_2_WARNING=1 "$environment/bin/python" -I -m mkdocs --quiet build --strict
python3 scripts/site.py finish target/site target/doc
python3 scripts/site.py check target/site
echo "open target/site/index.html"
