# make test    installs what the tests need (Debian packages) and runs everything
# make lint    formatting and clippy, warnings denied
# make bench   criterion benches; they assert their answers and their targets
# make characteristics   benches/operating_characteristics.md: false rollbacks and delays, in minutes
# make test-api   property-based requests against the API by its OpenAPI document; needs python3 with venv
# make fuzz    cargo-fuzz on what reads rule files, FUZZ_SECS (600) seconds a target; needs `cargo install cargo-fuzz`
# make demo    a release judged before your eyes

PACKAGES := prometheus chromium
BINARIES := prometheus chromium

FUZZ_TARGETS := rule_file test_file condition selector exposition
FUZZ_SECS := 600
FUZZ_SEEDS_rule_file := rules tests/cases/rules

.PHONY: test test-api lint bench characteristics demo fuzz tools

test: tools
	cargo test --lib --bins --test it --test memory
	cargo test --doc

test-api:
	tests/api/run.sh

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

bench:
	cargo bench --bench backtest --bench engine --bench exposition

characteristics:
	cargo bench --bench operating_characteristics

demo:
	cargo run --release -- demo

# The code has no `unsafe`, so no sanitizer is asked for, and a stable compiler will do. New inputs go to
# fuzz/corpus, and what breaks a promise to fuzz/artifacts; both are left out of the repository. The lock
# file is the product's own, so that what is fuzzed is what is shipped.
fuzz:
	cp Cargo.lock fuzz/Cargo.lock
	@for target in $(FUZZ_TARGETS); do mkdir -p fuzz/corpus/$$target tests/cases/fuzz/$$target; done
	@$(foreach target,$(FUZZ_TARGETS),echo "fuzzing $(target) for $(FUZZ_SECS)s" && cargo fuzz run -s none $(target) fuzz/corpus/$(target) tests/cases/fuzz/$(target) $(FUZZ_SEEDS_$(target)) -- -dict=fuzz/dictionaries/$(target).dict -max_total_time=$(FUZZ_SECS) -timeout=2 -max_len=4096 -verbosity=0 -print_final_stats=1 &&) true

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
