#!/bin/busybox sh
# fio runs it, as /begin and as /end, right before and after its I/O: it says the disk's interrupts so far.
awk -v what="${0#/}" '/virtio0-/ { for (i = 2; $i ~ /^[0-9]+$/; i++) sum += $i } END { print "@linux " what " " sum + 0 }' \
    /proc/interrupts > /dev/console
