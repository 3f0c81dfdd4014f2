#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Job of the stock Debian guests, which have no KUnit: a million pairs through
# debugfs, and all memory back afterwards.

. ./check.sh

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

lo_counts() { (cd /sys/class/net/lo/statistics && cat rx_packets rx_bytes); }

total() {
	sed -n 's/^total: packets \([0-9]*\) bytes \([0-9]*\)$/\1 \2/p' \
		/sys/kernel/debug/chm_flows/totals
}

# flows_exact PACKETS BYTES: the totals, and what lo has had since it had these
flows_exact() {
	# shellcheck disable=SC2046 # six words
	set -- "$@" $(lo_counts) $(total)
	echo "lo: $(($3 - $1)) packets, $(($4 - $2)) bytes; chm_flows: $5, $6"
	[ "$5" = $(($3 - $1)) ] && [ "$6" = $(($4 - $2)) ]
}

flows_grew() {
	[ "$(sed -n 's/^grows: //p' $chm/chm_flows/stats)" -ge 5 ]
}

# Packets of new flows and of old ones, while the map grows and flows expire
flows() {
	mkdir /www
	dd if=/dev/zero of=/www/big bs=1M count=4 2>/dev/null
	ip link set lo up
	httpd -p 8080 -h /www
	# shellcheck disable=SC2046 # two words
	set -- $(lo_counts)
	check flows_insmod insmod chm_flows.ko
	check flows_traffic sh traffic.sh 300
	check flows_exact flows_exact "$@"
	check flows_grew flows_grew
	echo 1 >/sys/kernel/debug/chm_flows/expire
	sh traffic.sh 100
	check flows_expire eval 'echo 1 >/sys/kernel/debug/chm_flows/expire'
	check flows_expired flows_exact "$@"
	check flows_rmmod rmmod chm_flows
	killall httpd
	rm -r /www
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
[ ! -e chm_flows.ko ] || flows
check rmmod rmmod chm
check memory_back memory_back
