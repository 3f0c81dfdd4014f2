# SPDX-License-Identifier: GPL-2.0-only
# What a person types; kbuild reads Kbuild.

KVER ?= $(shell uname -r)
KDIR ?= /lib/modules/$(KVER)/build
KMAKE := $(MAKE) -C $(KDIR) M=$(CURDIR)

all: modules

modules modules_install clean:
	$(KMAKE) $@

check lint selftest fuzz-debugfs verify asan bench-plot bench-peers:
	@scripts/$@

bench:
	@scripts/bench full

bench-quick:
	@scripts/bench quick

freeze:
	@scripts/check-freeze

mutate:
	@scripts/mutate $(MUTATION)

torture:
	@scripts/torture $(BUST)

demo:
	@scripts/demo $(KERNEL)

help:
	@echo '  modules         - build chm.ko for the running kernel (default),'
	@echo '                    or for KVER=version or KDIR=kernel-build-directory'
	@echo '  modules_install - install it; honours INSTALL_MOD_PATH'
	@echo '  clean           - remove what the build made'
	@echo
	@echo 'These install Debian packages that they miss, keep kernels in'
	@echo '~/.cache/chm, and boot them in QEMU:'
	@echo '  check           - everything: lint, selftest, freeze, smoke tests on'
	@echo '                    stock Debian kernels, KUnit on others, verify,'
	@echo '                    bench-quick; one part: ONLY=selftest|lint|freeze|'
	@echo '                    smoke|plain|debug|kcsan|uml|torture|fuzz-debugfs|verify|'
	@echo '                    asan|bench, or smoke-6.1'
	@echo '  lint            - compiler warnings, sparse, checkpatch, kernel-doc, ...'
	@echo '  selftest        - does the harness see what it must see?'
	@echo '  freeze          - does scripts/chm-freeze, which looks for locks and such'
	@echo '                    in the pairs of a module, judge as it should?'
	@echo '  verify          - run the litmus tests, and search a model of the'
	@echo '                    protocol exhaustively [FULL=1]; boots no kernel'
	@echo '  mutate          - do the tests see a broken protocol? [MUTATION=name]'
	@echo '  demo            - a guided tour of the map [KERNEL=6.1|6.12|current]'
	@echo
	@echo 'These run natively, on two CPUs, in a User Mode Linux kernel [KERNEL=...]:'
	@echo '  bench           - chm and its rivals, and the performance targets'
	@echo '  bench-quick     - the same, with fewer sizes'
	@echo '  torture         - all calls, in all contexts, on shared keys [MINUTES=1]'
	@echo '                    [SEED=n], or [KERNEL=uml-kasan|debug|kcsan|plain]'
	@echo '                    under KASAN or in QEMU; does it see a broken'
	@echo '                    protocol? [BUST=all|name]'
	@echo '  fuzz-debugfs    - random input to the debugfs files, under KASAN'
	@echo '                    [INPUTS=n] [SEED=n], or [KERNEL=uml|debug|kcsan|plain]'
	@echo '  bench-plot      - charts of the last run, in Documentation/images'
	@echo
	@echo 'This compiles chm for userland (user/) and runs it in a process:'
	@echo '  asan            - under AddressSanitizer, UBSan and ThreadSanitizer, and'
	@echo '                    fuzzed [SECS=60]'
	@echo '  bench-peers     - chm beside hash tables of liburcu and Concurrency Kit'

.PHONY: all modules modules_install clean check lint selftest freeze verify asan \
	mutate demo bench bench-quick bench-plot bench-peers \
	torture fuzz-debugfs help
