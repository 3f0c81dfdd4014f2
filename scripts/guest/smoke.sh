#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Job of the stock Debian guests, which have no KUnit: a million pairs through
# debugfs, the samples, and all memory back afterwards.

. ./check.sh
. /flows.sh
. /peers.sh

pairs=1000000
chm=/sys/kernel/debug/chm

order()   { echo "$1" >$chm/control; }
smoke()   { echo "$1" >$chm/smoke/control; }
entries() { grep -x "entries: $pairs" $chm/smoke/stats; }

# kB in use by anything but the page cache, and by vmalloc.  MemFree leaves out
# the pages that each CPU keeps in reserve: many, after a big table is freed.
used() {
	awk '/^MemTotal/ { t = $2 }
	     /^(MemFree|Buffers|Cached):/ { t -= $2 }
	     /^VmallocUsed/ { v = $2 }
	     /^ *count:/ { t -= 4 * $2 }
	     END { print t, v }' /proc/meminfo /proc/zoneinfo
}

near() { [ "$1" -lt $(($2 + $3)) ]; }

# Within 4 MB of what it was, and 1 MB of vmalloc; the pairs take 16 at least.
memory_back() {
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		read -r used_now vmalloc_now <<-EOF
			$(used)
		EOF
		near "$used_now" "$used_before" 4096 &&
			near "$vmalloc_now" "$vmalloc_before" 1024 && return
		sleep 2
	done
	echo "used $used_before kB, now $used_now kB"
	echo "vmalloc $vmalloc_before kB, now $vmalloc_now kB"
	return 1
}

round() {
	check "create$1"   order "create smoke key=8 value=8"
	check "fill$1"     smoke "fill 0 $pairs"
	check "entries$1"  entries
	check "verify$1"   smoke verify
	check "destroy$1"  order "destroy smoke"
}

# The first insmod leaves the kernel's own caches behind: measure after it.
check insmod_rmmod eval 'insmod chm.ko && rmmod chm'
sync
read -r used_before vmalloc_before <<EOF
$(used)
EOF

check insmod insmod chm.ko
round ''
round _again
if [ -e chm_policy.ko ]; then
	check sample_insmod insmod chm_policy.ko
	check sample_rmmod rmmod chm_policy
fi
[ ! -e chm_flows.ko ] || test_flows 300
test_peers 1000 2000
check rmmod rmmod chm
check memory_back memory_back
