# A stream on a Jetson with JetPack 6 (L4T 36), TensorRT and CSI cameras included. Build it on the
# Jetson, in the repository:
#   docker build -f examples/docker/jetpack.Dockerfile -t sfda-edge .
# Build the engine once on this Jetson; it is kept in the bundle's folder:
#   docker run --rm --runtime nvidia -v /srv/bundle:/data/bundle --entrypoint python3 sfda-edge \
#     -m export.engine /data/bundle
# Run it; nvargus-daemon of the host serves CSI cameras through the socket:
#   docker run --rm --runtime nvidia -v /tmp/argus_socket:/tmp/argus_socket --device /dev/video0 \
#     -v /srv/bundle:/data/bundle:ro -p 127.0.0.1:8080:8080 --env-file secrets \
#     sfda-edge csi0 --bundle /data/bundle --backend tensorrt --serve 0.0.0.0:8080
# The file secrets has the line SFDA_EDGE_TOKEN=…: every user of the host sees command lines.
# The image has TensorRT and its Python bindings of JetPack.
ARG BASE=nvcr.io/nvidia/l4t-tensorrt:r10.3.0-devel
FROM ${BASE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-pip gstreamer1.0-tools \
    gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/src
COPY setup.cfg pyproject.toml constraints.txt README.md LICENSE ./
COPY runtime runtime
COPY export export
COPY sfda_edge sfda_edge
# cuda-bindings of CUDA 12, as in JetPack 6. TensorRT stays the one of the image.
RUN pip3 install --no-cache-dir -c constraints.txt "cuda-bindings<13" \
    ".[opencv-headless,video,serve,record]"
WORKDIR /data
ENTRYPOINT ["python3", "-I", "-m", "runtime.stream"]
CMD ["--help"]
EXPOSE 8080
