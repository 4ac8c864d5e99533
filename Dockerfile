# One image for migrate, serve and worker; the command chooses.
FROM python:3.12-slim AS build
WORKDIR /src
COPY requirements.lock ./
RUN python -m venv /opt/keyturn \
    && /opt/keyturn/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY config config
COPY graphs graphs
COPY migrations migrations
COPY orchestrator orchestrator
RUN /opt/keyturn/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation .

FROM python:3.12-slim
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/keyturn keyturn
COPY --from=build /opt/keyturn /opt/keyturn
ENV PATH=/opt/keyturn/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    KEYTURN_DATA_DIR=/var/lib/keyturn
WORKDIR /var/lib/keyturn
USER keyturn
EXPOSE 8001
# A process gets SIGTERM, drains and hands its work back; no shell stands in between.
STOPSIGNAL SIGTERM
ENTRYPOINT ["keyturn"]
CMD ["serve", "--host", "0.0.0.0"]
