# emobench on CPU or, with the NVIDIA container toolkit, on a GPU: the default wheels run on both.
#   docker build -t emobench .
#   docker run --rm -v "$PWD/results:/bench/results" -v "$PWD/data:/bench/data" emobench bench demo
#   docker run --rm --gpus all --shm-size 8g … emobench bench full
# With extras of pyproject.toml, such as those of a node of KubeRay (docs/clusters.md):
#   docker build --build-arg EXTRAS=kuberay -t emobench .
FROM python:3.12-slim
ARG EXTRAS=

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY emobench ./emobench
RUN pip install --no-cache-dir --constraint constraints.txt ".${EXTRAS:+[$EXTRAS]}" \
    && useradd --create-home --uid 1000 emobench \
    && install -d -o emobench -g emobench /bench

USER 1000:1000
WORKDIR /bench
ENTRYPOINT ["emobench"]
CMD ["--help"]
