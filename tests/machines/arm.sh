#!/usr/bin/env bash
# The device half on 64-bit Arm without an Arm machine: a Debian root with wheels only, run by QEMU.
# Needs root, and Debian's mmdebstrap and qemu-user-static. About five minutes; 1 GB in WORK.
set -euo pipefail
cd "$(dirname "$0")/../.."
WORK=${1:-/tmp/sfda-edge-arm}
PYTHON=${PYTHON:-.venv/bin/python}
ROOT=$WORK/root
HANDLER=/proc/sys/fs/binfmt_misc/qemu-aarch64
PORT=18080

mkdir -p "$WORK"
if [ ! -x "$ROOT/usr/bin/python3" ]; then
  rm -rf --one-file-system "$ROOT"
  mmdebstrap --quiet --variant=extract --arch=arm64 \
    --include=python3-minimal,python3,libgl1,ca-certificates bookworm "$ROOT"
fi
SITE=$ROOT/opt/site
rm -rf "$SITE"
# What the extras runtime-cpu, opencv-headless, video and serve ask for, as wheels of Python 3.11.
"$PYTHON" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
  --target "$SITE" --only-binary :all: --python-version 3.11 --implementation cp \
  --platform manylinux_2_28_aarch64 --platform manylinux_2_17_aarch64 \
  --platform manylinux2014_aarch64 \
  numpy pillow opencv-python-headless onnxruntime av starlette uvicorn websockets prometheus-client
cp -r runtime "$SITE/"

# The kernel hands Arm programs to QEMU; F opens it now, so that the root needs no copy of it.
if [ ! -e "$HANDLER" ]; then
  mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
  printf '%s' ':qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:F' \
    > /proc/sys/fs/binfmt_misc/register
fi
mkdir -p "$ROOT/proc" "$ROOT/dev" "$ROOT/tmp"
mountpoint -q "$ROOT/proc" || mount -t proc proc "$ROOT/proc"
mountpoint -q "$ROOT/dev" || mount --bind /dev "$ROOT/dev"
STREAM=
clean() {
  [ -z "$STREAM" ] || kill "$STREAM" 2> /dev/null || true
  wait || true
  umount "$ROOT/proc" "$ROOT/dev"
}
trap clean EXIT

# The root has no env or timeout of its own.
export PYTHONPATH=/opt/site OMP_NUM_THREADS=1 LC_ALL=C.UTF-8
inside() { timeout 600 chroot "$ROOT" /usr/bin/python3 "$@"; }
echo "machine: $(inside -c 'import platform; print(platform.machine(), platform.python_version())')"
inside -m runtime.doctor || true  # it says what a Jetson would need; here nothing has to
inside -m runtime.stream streetsynth --frames 3 --threads 1 --jsonl /tmp/arm.jsonl
test "$(wc -l < "$ROOT/tmp/arm.jsonl")" = 3

# The page: a stream that goes on while it is asked.
timeout 300 chroot "$ROOT" /usr/bin/python3 -m runtime.stream streetsynth --loop --threads 1 \
  --serve 127.0.0.1:$PORT > "$WORK/stream.log" 2>&1 &
STREAM=$!
for _ in $(seq 240); do
  if curl -sf "http://127.0.0.1:$PORT/readyz" > /dev/null; then break; fi
  sleep 1
done
curl -sf "http://127.0.0.1:$PORT/" | grep -q '<title>sfda-edge</title>'
curl -sf "http://127.0.0.1:$PORT/metrics" | grep 'sfda_edge_frames_total{.*segmented'
curl -sf "http://127.0.0.1:$PORT/status" | grep -o '"state":"[a-z]*"'
kill -TERM "$STREAM"
wait "$STREAM" || true
STREAM=
tail -n 8 "$WORK/stream.log"
echo "Arm: passed"
