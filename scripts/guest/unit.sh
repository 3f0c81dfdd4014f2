#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Job of the plain, debug and kcsan guests: every test that chm has, but the
# smoke test.  $scale (percent, from the kernel command line) sizes the long ones.

. ./check.sh
. /flows.sh

rc=0

load_unload() {
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		insmod chm.ko && rmmod chm || return
	done
}

sample() { insmod "$1.ko" && rmmod "$1"; }

# Reports come out by themselves; few watchpoints would mean that few can.
watched() {
	echo "kcsan: measured: $(grep -E '^(setup_watch|data_r|assert_f)' "$kcsan" |
		tr '\n' ' ')"
	[ "$(sed -n 's/^setup_watchpoints: //p' "$kcsan")" -ge 200000 ]
}

kcsan=/sys/kernel/debug/kcsan
[ ! -e $kcsan ] || echo on >$kcsan
check load_unload load_unload
insmod chm.ko || exit
sh debugfs.sh || rc=1
if [ -e chm_flows.ko ]; then
	check chm_policy sample chm_policy
	test_flows 100
fi
for tests in chm_test chm_test_race chm_test_cell chm_test_sound; do
	# The last one has a race that must be seen: look eight times as often.
	[ ! -e $kcsan ] || [ $tests != chm_test_sound ] ||
		echo 500 >/sys/module/kcsan/parameters/skip_watch
	check load_$tests insmod $tests.ko scale="${scale:-100}"
done
check unload rmmod chm_test chm_test_race chm_test_cell chm_test_sound chm
[ ! -e $kcsan ] || check kcsan_watchpoints watched
exit $rc
