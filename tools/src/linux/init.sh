#!/bin/busybox sh
# The guest's first program: loads the driver, has fio do the work, says what came of it, and restarts, which ends QEMU.
# Its arguments, the last three: poll queues, whether symbols are wanted (on or off), fio's arguments with commas
# between them. The kernel puts what it does not know itself (nokaslr) before them.
# Lines that begin with @linux are for the tool; see session.rs.
PATH=/bin:/usr/bin
disk=/sys/block/vda
while [ $# -gt 3 ]; do shift; done

failed() {
    echo "@linux failed $*"
    busybox reboot -f
}

busybox mount -t proc proc /proc && busybox --install -s /bin || failed "busybox cannot be set up"
mount -t sysfs sys /sys && mount -t devtmpfs dev /dev || failed "sys or dev cannot be mounted"
echo "@linux kernel $(uname -r)"
echo "@linux fio $(fio --version)"

for module in /modules/*; do
    case $module in
        *virtio_blk.ko) insmod "$module" "poll_queues=$1" ;;
        *) insmod "$module" ;;
    esac || failed "${module##*/} cannot be loaded"
done
[ -e $disk/size ] || failed "there is no virtio disk"

# A short path: no scheduler, no merging, no statistics, no throttling.
echo none > $disk/queue/scheduler || failed "scheduler cannot be set"
echo 2 > $disk/queue/nomerges || failed "nomerges cannot be set"
echo 0 > $disk/queue/iostats || failed "iostats cannot be set"
echo 0 > $disk/queue/rq_affinity || failed "rq_affinity cannot be set"
echo 0 > $disk/queue/wbt_lat_usec

echo "@linux clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
echo "@linux disk $(cat $disk/size) $(cat $disk/ro) $(cat $disk/queue/io_poll) $(cat $disk/queue/nr_requests)" \
    "$(grep -c virtio0- /proc/interrupts) $(cat $disk/device/features) $(cat $disk/queue/write_cache)"

# fio's own words would come between the lines.
fio $(echo "$3" | tr , ' ') --output=/json > /said 2>&1 || failed "fio: $(cat /said /json | tr '\n' ' ' | cut -c 1-200)"
[ "$2" = on ] && sed -n '/\[virtio/s/^/@linux symbol /p' /proc/kallsyms
awk '{ print "@linux json " NR " " $0 } END { print "@linux done " NR }' /json
reboot -f
