#!/usr/bin/env bash
# Checks that no line of prose is wider than 120 columns: comments, Python, and Markdown outside of tables and fenced
# blocks. Prints the lines that are, and fails if there are any. Formatters see to the code.
set -euo pipefail
cd "$(dirname "$0")/.."
# Columns are characters, not bytes.
export LC_ALL=C.UTF-8

wide() { # PATTERN…: the wide lines of these tracked files, as FILE:LINE:TEXT
    git ls-files -z "$@" | xargs -0 -r grep -HnE '^.{121,}' || true
}

comments() { # MARK PATTERN…: those of them that are comments, but for tables
    wide "${@:2}" | grep -E "^[^:]+:[0-9]+:[[:space:]]*$1" | grep -vE "^[^:]+:[0-9]+:[[:space:]]*//[/!] \|" || true
}

python() { # all of them, but for lines that end with a note to a tool
    wide '*.py' '*.pyi' | grep -vE '# (noqa|type: ignore)' || true
}

markdown() { # all of them outside of tables and fenced blocks
    git ls-files '*.md' | while read -r file; do
        sed '/^```/,/^```/s/.*//' "$file" | grep -nE '^.{121,}' | grep -vE '^[0-9]+: *\|' | sed "s|^|$file:|" || true
    done
}

found=$(
    comments '//' '*.rs'
    comments '#' '*.toml' '*.sh' Makefile .ci/run
    python
    markdown
)
[ -z "$found" ] && exit
printf '%s\n' "$found"
echo "$(printf '%s\n' "$found" | wc -l) lines are wider than 120 columns" >&2
exit 1
