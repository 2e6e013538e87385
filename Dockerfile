# The engine's image: what `fleetwatt` needs to run, and nothing to build it with. docs/containers.md tells how it is used.
ARG PYTHON=3.13.9-slim-trixie

FROM python:${PYTHON} AS build
# Extras of pyproject.toml, comma-separated: parquet adds 170 MB.
ARG EXTRAS=tracing
ENV UV_NO_CACHE=1
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY alembic alembic
COPY sql sql
COPY service service
COPY deploy/install.sh deploy/install.sh
RUN deploy/install.sh /opt/fleetwatt "$EXTRAS"

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
