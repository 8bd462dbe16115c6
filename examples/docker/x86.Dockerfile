# A stream on an x86 machine with or without an NVIDIA GPU. Build it in the repository:
#   docker build -f examples/docker/x86.Dockerfile -t sfda-edge .
# For a GPU (NVIDIA Container Toolkit on the host):
#   docker build -f examples/docker/x86.Dockerfile --build-arg RUNTIME=runtime-gpu \
#     --build-arg BASE=nvidia/cuda:12.9.1-cudnn-runtime-ubuntu24.04 -t sfda-edge .
# Run it with a camera; the bundle is a volume, so that a new model needs no new image:
#   docker run --rm --device /dev/video0 -v /srv/bundle:/data/bundle:ro -p 127.0.0.1:8080:8080 \
#     --env-file secrets sfda-edge camera0 --bundle /data/bundle --serve 0.0.0.0:8080
# The file secrets has the line SFDA_EDGE_TOKEN=…: every user of the host sees command lines.
# With a GPU add --gpus all.
ARG BASE=ubuntu:24.04
FROM ${BASE}
ARG RUNTIME=runtime-cpu
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv gstreamer1.0-tools \
    gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/src
COPY setup.cfg pyproject.toml constraints.txt README.md LICENSE ./
COPY runtime runtime
COPY sfda_edge/__init__.py sfda_edge/__init__.py
# The device half only: no torch, no onnx.
RUN python3 -m venv /opt/sfda-edge \
 && /opt/sfda-edge/bin/pip install --no-cache-dir -c constraints.txt \
    ".[${RUNTIME},opencv-headless,video,serve,record]"
RUN useradd --system --create-home --home-dir /data --groups video sfda-edge
USER sfda-edge
WORKDIR /data
# Exec form: SIGTERM of `docker stop` reaches the stream, which finishes its files in two seconds.
ENTRYPOINT ["/opt/sfda-edge/bin/python", "-I", "-m", "runtime.stream"]
CMD ["--help"]
EXPOSE 8080
# It asks the page of --serve at port 8080; without one, run with --no-healthcheck.
HEALTHCHECK --start-period=10m CMD ["/opt/sfda-edge/bin/python", "-I", "-c", \
 "import os, urllib.request as u; u.urlopen(u.Request('http://127.0.0.1:8080/readyz', headers={'Authorization': 'Bearer ' + os.environ.get('SFDA_EDGE_TOKEN', '')}), timeout=5)"]
