#!/usr/bin/env bash
# Property-based requests against the API of a real service, by its own OpenAPI document: no answer may be a 5xx, and
# none may be one that the document does not know. Needs python3 with venv; schemathesis comes from PyPI.
#   API_EXAMPLES (100)  requests per operation and phase      API_SEED (1)  the same seed makes the same requests
set -euo pipefail
cd "$(dirname "$0")/../.."
home=${CARGO_TARGET_DIR:-target}/api-test
mkdir -p "$home"
if [ ! -x "$home/venv/bin/st" ] || ! cmp -s tests/api/requirements.txt "$home/requirements.txt"; then
    echo "installing schemathesis"
    python3 -m venv --clear "$home/venv"
    "$home/venv/bin/pip" install -q --disable-pip-version-check -r tests/api/requirements.txt
    cp tests/api/requirements.txt "$home/requirements.txt"
fi
cargo build --bin rollgate
world=$(mktemp -d)
trap 'kill "${service:-}" "${target:-}" 2>/dev/null || true; rm -rf "$world"' EXIT
mkdir "$world/rules"
cp rules/recommended.yaml "$world/rules/"
cat > "$world/rollgate.yaml" <<'CONFIG'
listen: 127.0.0.1:0
store: api.db
rules: rules
mechanisms:
  deploy: { webhook: { url: 'http://127.0.0.1:9/hook', secrets: [{ env: ROLLGATE_API_TEST_SECRET }] } }
services:
  "*":
    rules: recommended
    mechanisms: [deploy]
    canary: { targets: ['http://127.0.0.1:9'] }
    baseline: { targets: ['http://127.0.0.1:9'] }
CONFIG
export ROLLGATE_API_TEST_SECRET=a-signing-key-of-some-length
"${CARGO_TARGET_DIR:-target}/debug/rollgate" serve --config "$world/rollgate.yaml" > "$world/out" 2> "$world/log" &
service=$!
for _ in $(seq 100); do
    address=$(sed -n 's/^rollgate serves //p' "$world/out")
    [ -z "$address" ] || break
    sleep 0.1
done
[ -n "$address" ] || { echo "the service did not start:"; cat "$world/log"; exit 1; }
echo "testing $address"
# An analysis that was decided by hand, so that there is a delivery.
said() { curl -fsS -H 'content-type: application/json' -d "$2" "$address$1"; }
id=$(said /v1/analyses '{"service": "shop", "canary": {"version": "v2"}}' | sed 's/^{"id":"\([^"]*\)".*/\1/')
said "/v1/analyses/$id/override" '{"verdict": "rollback", "who": "test-api", "why": "a delivery is wanted"}' > "$world/view"
export API_DELIVERY="$id.deploy" API_ANALYSIS="$id"

"$home/venv/bin/st" --config-file tests/api/schemathesis.toml run "$address/v1/openapi.json" \
    --max-examples "${API_EXAMPLES:-100}" --seed "${API_SEED:-1}" || failed=1
if grep -q "panicked" "$world/log"; then
    echo "the service panicked:"; grep -A3 "panicked" "$world/log" | head -20; failed=1
fi
curl -fsS "$address/healthz" > /dev/null || { echo "the service does not live any more"; failed=1; }
exit "${failed:-0}"
