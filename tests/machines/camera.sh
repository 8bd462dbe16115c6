#!/usr/bin/env bash
# A real V4L2 camera without hardware: Debian's kernel with its vivid module, in QEMU without KVM,
# on the host's own file system (read-only). Runs tests/machines/test_camera.py there.
# Needs Debian's qemu-system-x86, busybox-static, kmod, cpio and v4l-utils. About four minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
WORK=${1:-/tmp/sfda-edge-camera}
HERE=$PWD
mkdir -p "$WORK"

PACKAGE=$(apt-cache depends linux-image-amd64 | sed -n 's/ *Depends: //p' | head -1)
VERSION=${PACKAGE#linux-image-}
if [ ! -e "$WORK/kernel/boot/vmlinuz-$VERSION" ]; then
  rm -rf "$WORK/kernel"
  (cd "$WORK" && apt-get download -qq "$PACKAGE" && dpkg -x "$PACKAGE"_*.deb kernel)
fi
/usr/sbin/depmod -b "$WORK/kernel" "$VERSION"

INIT=$WORK/init
rm -rf "$INIT"
mkdir -p "$INIT/bin" "$INIT/modules" "$INIT/host" "$INIT/proc" "$INIT/sys" "$INIT/dev"
cp "$(command -v busybox)" "$INIT/bin/busybox"
number=100
for module in virtio_pci 9pnet_virtio 9p vivid; do
  while read -r _ path _; do
    number=$((number + 1))
    if ! ls "$INIT"/modules/*-"$(basename "$path")" > /dev/null 2>&1; then
      cp "$path" "$INIT/modules/$number-$(basename "$path")"
    fi
  done < <(/usr/sbin/modprobe -d "$WORK/kernel" -S "$VERSION" --show-depends "$module")
done
cat > "$INIT/init" <<INIT
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*; do /bin/busybox insmod \$module; done
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=262144 hostroot /host
for name in dev proc sys; do /bin/busybox mount --bind /\$name /host/\$name; done
/bin/busybox mount -t tmpfs tmp /host/tmp
/bin/busybox ip link set lo up
cd /host
/bin/busybox chroot /host /usr/bin/env HOME=/tmp PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
  PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=2 SFDA_EDGE_CAMERA=vivid /bin/sh -c \
  'cd $HERE && .venv/bin/python tests/machines/in_camera_machine.py; echo "exit code \$?"'
/bin/busybox poweroff -f
INIT
chmod +x "$INIT/init"
(cd "$INIT" && find . | cpio --quiet -o -H newc | gzip -1 > "$WORK/initrd")

timeout 420 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 2048 -nographic -no-reboot \
  -kernel "$WORK/kernel/boot/vmlinuz-$VERSION" -initrd "$WORK/initrd" \
  -append "console=ttyS0 quiet loglevel=3 panic=-1" -nic none \
  -virtfs local,path=/,mount_tag=hostroot,security_model=none,readonly=on,multidevs=remap \
  < /dev/null | tee "$WORK/console.log"
grep -q "^exit code 0" "$WORK/console.log"
echo "camera: passed"
