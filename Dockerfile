# The engine's image: what `fleetwatt` needs to run, and nothing to build it with. docs/containers.md tells how it is used.
ARG PYTHON=3.13.9-slim-trixie

FROM python:${PYTHON} AS build
# Extras of pyproject.toml, comma-separated: parquet adds 170 MB.
ARG EXTRAS=tracing
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY alembic alembic
COPY sql sql
COPY service service
# The lock holds what tests need, too: as constraints it gives versions and hashes of what the wheel asks for, no more.
RUN uv build --wheel --build-constraints requirements.lock --require-hashes --out-dir dist \
    && wheel=$(ls "$PWD"/dist/*.whl) \
    && echo "fleetwatt[$EXTRAS] @ file://$wheel --hash=sha256:$(sha256sum "$wheel" | cut -d' ' -f1)" > dist/wanted.txt \
    && uv venv --python python3 /opt/fleetwatt \
    && uv pip install --python /opt/fleetwatt --require-hashes --constraints requirements.lock --requirements dist/wanted.txt

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="fleetwatt" org.opencontainers.image.licenses="Apache-2.0"
# The folder is for a volume that workers share: a new volume takes its owner over.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin fleetwatt \
    && install -d -o 10001 -g 10001 /var/lib/fleetwatt
COPY --from=build /opt/fleetwatt /opt/fleetwatt
COPY deploy/compose/worker.sh /usr/local/bin/fleetwatt-worker
ENV PATH=/opt/fleetwatt/bin:$PATH PYTHONDONTWRITEBYTECODE=1 FLEETWATT_LOG_FORMAT=json
USER 10001:10001
WORKDIR /
EXPOSE 8080
ENTRYPOINT ["fleetwatt"]
CMD ["serve"]
