# Alpine's Rust links statically against musl, so that the result needs nothing around it. For several platforms:
#   docker buildx build --platform linux/amd64,linux/arm64 .
FROM rust:1-alpine AS build
# The C compiler is for SQLite and for the arithmetic of TLS. Of what only builds, the newest will do.
# hadolint ignore=DL3018
RUN apk add --no-cache gcc musl-dev
WORKDIR /src
COPY . .
# An explicit target keeps the flags away from build scripts. The toolchain of this platform knows its name.
RUN target="$(rustc --print host-tuple)" \
    && RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs" \
       cargo build --release --locked --bin lms_metrics_proxy --target "$target" \
    && cp "target/$target/release/lms_metrics_proxy" /lms_metrics_proxy \
    && mkdir -p /tree/app/data

FROM scratch
LABEL org.opencontainers.image.title="LMS Metrics Proxy" \
      org.opencontainers.image.description="A transparent proxy in front of LM Studio that records token usage in SQLite." \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /lms_metrics_proxy /lms_metrics_proxy
# The folder exists and belongs to the user, so that a new volume over it does too.
COPY --from=build --chown=10001:10001 /tree/ /
USER 10001:10001
WORKDIR /app
# SQLite's temporary files go where there is certainly room to write.
ENV HOST=0.0.0.0 \
    DATABASE_URL=sqlite:/app/data/metrics.db \
    SQLITE_TMPDIR=/app/data
VOLUME /app/data
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=5s CMD ["/lms_metrics_proxy", "--health"]
ENTRYPOINT ["/lms_metrics_proxy"]
