# The tasks people run; .ci/run is `make check`. Each target first installs the tools it lacks.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

target := $(or $(CARGO_TARGET_DIR),target)
tools := $(target)/tools
manifests := $(wildcard deploy/kubernetes/*.yaml)
# The configuration that each of them carries.
carried := $(manifests:deploy/kubernetes/%=$(target)/deploy/%)
# The manifests that deploy/tools/kubernetes.sh renders and that hold a configuration.
rendered := gateway $(notdir $(wildcard tests/deploy/*)) chart-one-tenant chart-many-tenants chart-admin chart-embed chart-every-credential
configurations := $(wildcard config/*.yaml deploy/packages/gateway.yaml deploy/compose/*/gateway/gateway.yaml)
# The platform of this machine, such as x86_64-unknown-linux-gnu.
host = $(shell rustc -vV | sed -n 's/^host: //p')
# The boldgate that judges the shipped configurations; the development profile, as the tests.
BOLDGATE ?= cargo run --quiet --locked --

.PHONY: help demo build test test-idp page-test page-short embed-page embed-sdk embed-properties metrics-page metrics-load check bench admission readers client-addresses reloads token-store soak soak-short hundred-thousand thousands-short image image-test compose-test packages packages-test acceptance fmt crates deploy-files clippy docs configs deny

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1 \2/p' Makefile | while read -r name text; do printf '  make %-13s %s\n' "$$name" "$$text"; done

demo: build ## start the gateway in front of a pretend Bold BI and show what it does
	$(target)/release/boldgate demo

build: ## build the release binary
	.ci/need rust build
	cargo build --release --locked

test: ## run all tests: unit, integration, documentation; none of their secrets may show in the output
	.ci/need rust build redis
	tests/leaks.sh $(target)/test-output.txt

test-idp: $(target)/idp/ready ## do JWTs of a real identity provider work, through its rotations? (needs Node)
	.ci/need rust build
	install -m 644 tests/idp/provider.mjs $(target)/idp
	BOLDGATE_TEST_IDP=$(abspath $(target)/idp/provider.mjs) cargo test --locked --test it idp:: -- --ignored

page-test: $(target)/page/ready ## the status page in headless Chromium: sizes, colours, keyboard, axe-core; screenshots in target/page/
	.ci/need rust build chromium
	install -m 644 tests/page/check.mjs $(target)/page
	BOLDGATE_TEST_PAGE=$(abspath $(target)/page/check.mjs) cargo test --locked --test it -- --ignored --exact --nocapture \
	    page::the_page_works_at_every_size_with_few_and_with_thousands_of_tenants

page-short: $(target)/page/ready ## the same on a phone alone, and its actions with a real gateway
	.ci/need rust build chromium
	install -m 644 tests/page/check.mjs $(target)/page
	BOLDGATE_TEST_PAGE=$(abspath $(target)/page/check.mjs) cargo test --locked --test it -- --ignored --exact \
	    page::the_page_works_on_a_phone page::the_actions_of_the_page_change_a_real_gateway

embed-page: $(target)/page/ready ## the calls of the embed SDK, the page of the demo and the React component of the documents, in headless Chromium
	.ci/need rust build chromium
	install -m 644 tests/page/embed.mjs tests/page/demo.mjs tests/page/react.mjs tests/page/chromium.mjs $(target)/page
	BOLDGATE_TEST_EMBED_PAGE=$(abspath $(target)/page/embed.mjs) BOLDGATE_TEST_DEMO_PAGE=$(abspath $(target)/page/demo.mjs) \
	    BOLDGATE_TEST_REACT_PAGE=$(abspath $(target)/page/react.mjs) \
	    cargo test --locked --test it embed::browser:: -- --ignored

# Of Bold BI's own SDK, this repository has nothing.
sdk := $(or $(SDK),$(target)/sdk)
embed-sdk: $(target)/page/ready $(if $(SDK),,$(target)/sdk/ready) ## Bold BI's own embed SDK, fetched or in SDK=FOLDER (v14.2.4/dist and others), in each way to embed
	.ci/need rust build chromium
	install -m 644 tests/page/sdk.mjs tests/page/chromium.mjs $(target)/page
	BOLDGATE_TEST_SDK_PAGE=$(abspath $(target)/page/sdk.mjs) BOLDGATE_TEST_SDK=$(abspath $(sdk)) \
	    cargo test --locked --test it embed::real_sdk:: -- --ignored

metrics-page: $(tools)/ready ## do promtool, Prometheus and a strict parser take the page of metrics?
	.ci/need rust build prometheus redis
	BOLDGATE_TEST_PYTHON=$(abspath $(tools))/bin/python \
	    cargo test --locked --test it metrics::prometheus:: -- --ignored

metrics-load: ## the same under a minute of load
	.ci/need rust build prometheus redis
	BOLDGATE_TEST_LOAD_SECONDS=60 cargo test --locked --test it -- --ignored --exact \
	    metrics::prometheus::prometheus_scrapes_the_gateway_under_load

# Cheapest first.
checks := fmt crates deploy-files clippy docs test embed-properties soak-short thousands-short test-idp page-short embed-page client-addresses metrics-page configs

check: ## all that must hold before a merge, with a line for each step
	@for step in $(checks); do \
	    begun=$$SECONDS; \
	    CARGO_TERM_QUIET=true $(MAKE) --silent --no-print-directory $$step || \
	        { echo "check: FAILED in 'make $$step', after $$SECONDS s" >&2; exit 1; }; \
	    echo "check: $$step passed in $$((SECONDS - begun)) s"; \
	done; \
	echo "check: all steps passed in $$SECONDS s"

# The load is put on a copy of the binary that is released: `cargo bench` builds another in its place,
# whose crates have what only tests need of them.
bench: build ## run the benches: the parts, then the whole under load (README in benches/)
	install -D $(target)/release/boldgate $(target)/bench/boldgate
	cargo bench --locked --bench micro
	cargo bench --locked --bench load -- --gateway $(target)/bench/boldgate

admission: ## count the instructions that it takes to admit a caller; over the bound, fail
	.ci/need rust build valgrind
	cargo bench --locked --bench admission

readers: ## 10,000 mutated requests: what goes on is what nginx and hyper read of the same bytes
	.ci/need rust build nginx
	cargo test --locked --test it security::readers -- --include-ignored --nocapture --test-threads 1

client-addresses: ## through a real HAProxy and a real nginx: a client's address, and the splits of deploy/split
	.ci/need rust build haproxy nginx-stream
	cargo test --locked --test it clients:: -- --include-ignored --test-threads 1

reloads: ## change and restart the gateway under load a hundred times each; no request may fail
	.ci/need rust build
	cargo test --locked --test it reload:: -- --ignored --nocapture --test-threads 1

# The first commit with a token store: it and this one use each other's tokens.
store_before := 8e4c3d593848177c6ca88cdfc97a54742e98579e
store_before_folder := $(target)/store-before/$(store_before)

$(store_before_folder)/boldgate:
	.ci/need rust build
	@git cat-file -e '$(store_before)^{commit}' || { echo 'missing: the first commit with a token store: git fetch --unshallow' >&2; exit 2; }
	rm -rf $(store_before_folder)
	mkdir -p $(store_before_folder)/source
	git archive $(store_before) | tar --extract --directory $(store_before_folder)/source
	cd $(store_before_folder)/source && \
	    BOLDGATE_COMMIT=$(store_before) CARGO_TARGET_DIR=$(abspath $(target)) cargo build --locked && \
	    install $(abspath $(target))/debug/boldgate $(abspath $(store_before_folder))

token-store: $(store_before_folder)/boldgate ## eight processes with every fault, Sentinel, a Cluster, Valkey, a former gateway; three minutes
	.ci/need rust build redis valkey
	BOLDGATE_TEST_STORE_BEFORE=$(abspath $<) \
	    cargo test --locked --test it token_store::heavy -- --ignored --nocapture --test-threads 1

soak: build ## a million requests among faults: does anybody get what is not theirs? (README in benches/)
	.ci/need redis
	install -D $(target)/release/boldgate $(target)/bench/boldgate
	cargo bench --locked --bench soak -- --reloads --store --gateway $(target)/bench/boldgate

image: build ## build the image without pulling anything: an OCI and a docker archive (uses Debian's packages)
	.ci/need image
	deploy/image/build.sh $(target)/release/boldgate $(target)/image

image-test: image ## is the image what the Dockerfile says, and does it start?
	python3 deploy/image/test.py $(target)/image

packages: $(tools)/packages/ready ## build deb and rpm for glibc 2.28 and newer, with checksums and an SBOM
	.ci/need rust build
	PATH=$(abspath $(tools)/packages/bin):$$PATH \
	    cargo zigbuild --release --locked --bin boldgate --target $(host).2.28
	deploy/packages/build.sh $(target)/$(host)/release/boldgate $(tools)/packages/bin $(target)/packages

# The commit that the test upgrades from and rolls back to: the first with packages, built as it was.
before := ee6a5fd884f28f5adb4ad4dfb92834614ee38ac9
before_folder := $(target)/packages-before/$(before)

$(before_folder)/packages/SHA256SUMS: | $(tools)/packages/ready
	.ci/need rust build
	@git cat-file -e '$(before)^{commit}' || { echo 'missing: the commit that the test upgrades from: git fetch --unshallow' >&2; exit 2; }
	rm -rf $(before_folder)
	mkdir -p $(before_folder)/source
	git archive $(before) | tar --extract --directory $(before_folder)/source
	cd $(before_folder)/source && \
	    export SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct $(before)) BOLDGATE_COMMIT=$(before) && \
	    PATH=$(abspath $(tools)/packages/bin):$$PATH CARGO_TARGET_DIR=$(abspath $(target)) \
	        cargo zigbuild --release --locked --bin boldgate --target $(host).2.28 && \
	    deploy/packages/build.sh $(abspath $(target))/$(host)/release/boldgate $(abspath $(tools))/packages/bin \
	        $(abspath $(before_folder))/packages 0.0.1

packages-test: $(before_folder)/packages/SHA256SUMS packages ## install, use, upgrade, roll back and remove the packages in a booted Debian (as root)
	.ci/need packages-test
	$(target)/$(host)/release/boldgate check --no-secrets $(before_folder)/source/config/*.yaml
	python3 deploy/packages/test.py $(before_folder)/packages $(target)/packages $(target)/packages-test

compose-test: build $(tools)/ready ## run the processes of the compose demo from its files (as root; without Grafana)
	.ci/need prometheus compose-test
	unshare --mount --net $(tools)/bin/python deploy/compose/test.py run \
	    $(target)/release/boldgate $(target)/compose-demo

# Minutes to hours, some as root.
acceptance: page-test embed-sdk readers reloads token-store soak hundred-thousand image-test compose-test packages-test metrics-load ## the heavy proofs, before a release

embed-properties: ## does any body of a page lead to a call that it must not? 100,000 cases of each property
	.ci/need rust build
	PROPTEST_CASES=100000 cargo test --quiet --locked --lib embed::tests::properties

soak-short: ## the same with fewer requests and the development profile
	.ci/need rust build redis
	cargo test --locked --bench soak -- --reloads --store --requests 20000

hundred-thousand: build ## 100,000 tenants from files: start, memory, CPU, metrics and changes within bounds (README in benches/)
	.ci/need python
	python3 benches/thousands.py --gateway $(target)/release/boldgate

# The development profile is not optimised: times may be ten times as long.
thousands-short: ## the same with 5,000 tenants and the development profile
	.ci/need rust build python
	cargo build --locked
	python3 benches/thousands.py --gateway $(target)/debug/boldgate --tenants 5000 --requests 2000 \
	    --factor 10 --rough

fmt: ## is every file formatted?
	.ci/need rust
	cargo fmt --check

crates: ## does no crate bring a second TLS or crypto library?
	.ci/need rust
	@found=$$(cargo tree --locked --edges normal,build --target all --prefix none --format '{p}'); \
	if grep -E '^(openssl|openssl-sys|native-tls|boring|aws-lc-rs|aws-lc-sys) ' <<<"$$found"; then \
	    echo 'not allowed: TLS and cryptography are on ring; `cargo tree --invert` names who brings it' >&2; exit 1; \
	fi

deploy-files: $(tools)/ready $(carried) ## are image, manifests, units, alerts and scripts well-formed?
	.ci/need prometheus systemd
	promtool check rules deploy/prometheus/boldgate.rules.yaml
	promtool test rules deploy/prometheus/boldgate.test.yaml
	$(tools)/bin/python deploy/prometheus/test.py $(target)/dashboard
	python3 deploy/grafana/types.py $(tools) $(target)/dashboard
	$(tools)/bin/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose/*/compose.yaml
	$(tools)/bin/python deploy/compose/test.py check $(target)
	$(tools)/bin/shellcheck .ci/* tests/*.sh deploy/image/*.sh deploy/packages/*.sh deploy/systemd/*.sh deploy/tools/*.sh
	deploy/systemd/check.sh $(target)/systemd
	$(tools)/bin/yamllint --strict --config-file deploy/tools/yamllint.yaml deploy tests/deploy $(wildcard config)
	$(tools)/bin/hadolint --failure-threshold style deploy/Dockerfile
	$(tools)/bin/kubernetes-validate --kubernetes-version 1.32 --strict $(manifests)

clippy: ## does Clippy have nothing to say?
	.ci/need rust build
	cargo clippy --locked --all-targets -- -D warnings

docs: ## does the code's documentation build, with no dead link?
	.ci/need rust build
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --locked --document-private-items

configs: $(tools)/ready $(carried) ## does the gateway take every configuration we ship?
	.ci/need rust build
	$(BOLDGATE) schema | diff --unified config/boldgate.schema.json -
	$(BOLDGATE) schema --tenant-file | diff --unified config/boldgate.tenants.schema.json -
	$(BOLDGATE) check --no-secrets $(configurations) $(carried)
	deploy/tools/kubernetes.sh $(tools) $(target)/kubernetes
	for name in $(rendered); do \
	    $(tools)/bin/python deploy/tools/manifest.py $(target)/kubernetes/$$name.yaml >$(target)/deploy/$$name.yaml; \
	    $(BOLDGATE) check --no-secrets $(target)/deploy/$$name.yaml; \
	done
	$(tools)/bin/check-jsonschema --schemafile config/boldgate.tenants.schema.json config/tenants.d/*.yaml
	$(tools)/bin/check-jsonschema --schemafile config/boldgate.schema.json \
	    $(configurations) $(carried)

deny: ## do the licences, sources and advisories of all crates pass? (needs the network)
	.ci/need rust build
	cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny@0.20.2
	cargo deny --locked check

# The validators, pinned, apart from the system's Python.
$(tools)/ready: deploy/tools/requirements.txt deploy/tools/package.json deploy/tools/package-lock.json
	.ci/need python node
	rm -rf $(tools)
	python3 -m venv $(tools)
	$(tools)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	cp $(filter %.json,$^) $(tools)
	npm ci --prefix $(tools) --ignore-scripts --no-audit --no-fund --loglevel error
	touch $@

# The builders of `make packages`, pinned. zig links with an old glibc.
$(tools)/packages/ready: deploy/packages/requirements.txt $(tools)/ready
	.ci/need rust build python
	rm -rf $(@D)
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	cargo install --quiet --locked --root $(@D) cargo-cyclonedx@0.5.9
	touch $@

# The tools of `make test-idp` and of the page's tests, pinned; their scripts are not run, and no browser
# is fetched.
$(target)/idp/ready $(target)/page/ready: $(target)/%/ready: tests/%/package.json tests/%/package-lock.json
	.ci/need node
	rm -rf $(@D)
	install -D -m 644 --target-directory $(@D) $^
	npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --loglevel error
	touch $@

$(target)/sdk/ready:
	rm -rf $(@D)
	git clone --quiet --no-checkout $(or $(SDK_REPOSITORY),https://github.com/boldbi/boldbi-embedded-sdk.git) $(@D)/repository
	for version in 4.2.68 7.11.24 12.1.5 14.2.4; do \
	    mkdir $(@D)/v$$version; \
	    git -C $(@D)/repository archive tags/v$$version dist | tar --extract --directory $(@D)/v$$version; \
	done
	touch $@

# The configuration inside a manifest, once it is sure that the manifest fits it.
$(target)/deploy/%.yaml: deploy/kubernetes/%.yaml deploy/tools/manifest.py $(tools)/ready
	mkdir -p $(@D)
	$(tools)/bin/python deploy/tools/manifest.py $< > $@
