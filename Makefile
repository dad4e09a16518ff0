# make test    installs what the tests need (Debian packages) and runs everything
# make lint    formatting and clippy, warnings denied
# make bench   criterion benches; they assert their answers and their targets
# make characteristics   benches/operating_characteristics.md: false rollbacks and delays, in minutes
# make demo    a release judged before your eyes

PACKAGES := prometheus chromium
BINARIES := prometheus chromium

.PHONY: test lint bench characteristics demo tools

test: tools
	cargo test --lib --bins --test it --test memory
	cargo test --doc

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

bench:
	cargo bench --bench backtest --bench engine --bench exposition

characteristics:
	cargo bench --bench operating_characteristics

demo:
	cargo run --release -- demo

# Idempotent: asks for nothing when both programs are there.
tools:
	@missing=""; for tool in $(BINARIES); do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	echo "the tests need:$$missing; installing with apt-get"; \
	if ! command -v apt-get >/dev/null; then \
	  echo "error: no apt-get here; install$$missing by hand and run make test again"; exit 1; fi; \
	sudo=""; if [ "$$(id -u)" != 0 ]; then \
	  if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo="sudo -n"; else \
	    echo "error: installing needs root; run: sudo apt-get install -y --no-install-recommends $(PACKAGES)"; exit 1; fi; fi; \
	$$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $(PACKAGES)
