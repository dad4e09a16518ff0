#!/bin/sh
# Prints the version that is checked out: in the words of the event where it names the same commit (a
# tag, a branch, a short hash), else as the whole hash.
set -eu

app=${APP_DIR:-$HOME/app}
head=$(git -C "$app" rev-parse HEAD)
for version in "${ROLLGATE_CANARY_VERSION:-}" "${ROLLGATE_BASELINE_VERSION:-}"; do
    commit=$(git -C "$app" rev-parse --verify --quiet "$version^{commit}") || continue
    if [ "$commit" = "$head" ]; then
        echo "$version"
        exit 0
    fi
done
echo "$head"
