#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Job of the guests that fuzz debugfs.  $inputs and $seed are from the kernel command
# line; the fuzzer (fuzz.c) explains itself.

. ./check.sh

chm=/sys/kernel/debug/chm

fuzz() { ./fuzz -n "${inputs-10000}" -s "${seed-1}"; }

# Maps are left for this.
unload() { rmmod chm && [ ! -e $chm ]; }

insmod chm.ko || exit
check fuzz fuzz
check unload unload
