# hooklog's groups and API. `docker build -t hooklog .`; what runs is the command: `run dispatcher`, `run api`…
ARG PYTHON=python:3.13.11-slim

FROM ${PYTHON} AS build
WORKDIR /src
RUN python -m venv /venv
COPY pyproject.toml constraints.txt README.md ./
COPY engine engine
COPY consumers consumers
COPY schemas schemas
RUN /venv/bin/python -m pip install --no-cache-dir --no-compile --constraint constraints.txt . \
 && /venv/bin/python -m pip uninstall --yes pip

FROM ${PYTHON}
RUN python -m pip uninstall --yes --root-user-action=ignore pip \
 && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin hooklog
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOOKLOG_API_HOST=0.0.0.0 \
    HOOKLOG_METRICS_HOST=0.0.0.0 \
    HOOKLOG_METRICS_PORT=9100
USER 10001
EXPOSE 8080 9100
# A group's probes. The API has them at its own port: its service says so.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=2)", "http://127.0.0.1:9100/readyz"]
ENTRYPOINT ["hooklog"]
CMD ["--help"]
