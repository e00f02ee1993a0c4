# syntax=docker/dockerfile:1
# make image, or: docker build --tag tagrelay .

# Only the Cargo.toml files of the workspace. The next stage copies them from here, so its cached layers stay valid
# until one of them changes.
FROM rust:1.95-slim-bookworm AS manifests
WORKDIR /src
COPY . .
RUN find . -type f ! -name Cargo.toml ! -name Cargo.lock -delete

# Dependencies need a C compiler (libgit2, SQLite, ring), which the Rust image has. No OpenSSL, no cmake.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
# zlib is linked statically: the final image has none. Incremental state would never be used.
ENV LIBZ_SYS_STATIC=1 CARGO_INCREMENTAL=0

# A layer with the dependencies, built from the Cargo.toml files and empty sources. Cargo requires a file for each
# [[bench]]. The empty packages are removed afterwards: they are newer than the sources, so Cargo would not rebuild
# them.
COPY --from=manifests /src .
RUN mkdir -p src benches \
    && echo 'fn main() {}' >src/main.rs \
    && : >src/lib.rs \
    && for crate in crates/*/; do mkdir -p "$crate/src" && : >"$crate/src/lib.rs"; done \
    && for bench in $(sed -n '/^\[\[bench\]\]/,/^$/s/^name = "\(.*\)"$/\1/p' Cargo.toml); do \
         echo 'fn main() {}' >"benches/$bench.rs"; \
       done \
    && cargo build --release --locked \
    && cargo clean --release --workspace \
    && rm -r src benches crates/*/src

COPY . .
# For `tagrelay --version`: the build context has no .git.
ARG TAGRELAY_COMMIT=""
ARG TAGRELAY_COMMIT_DATE=""
RUN cargo build --release --locked && mkdir /empty

# Contains glibc, libgcc, CA certificates and a nonroot user; no shell and no package manager. HTTPS and SSH are part of
# the program. Only `file://` remotes need the git program, which a container does not use.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="Tagrelay" \
      org.opencontainers.image.description="Relays image tags from container registries to the Git repository that Argo CD watches" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /src/target/release/tagrelay /usr/local/bin/tagrelay
# A volume mounted here gets this owner, so the program can write to it.
COPY --from=build --chown=65532:65532 /empty /var/lib/tagrelay
# By default, glibc gives each thread its own heap: a third more memory with 30,000 manifests.
ENV MALLOC_ARENA_MAX=1
USER 65532:65532
WORKDIR /var/lib/tagrelay
EXPOSE 8080 9090
ENTRYPOINT ["/usr/local/bin/tagrelay"]
CMD ["serve", "--config", "/etc/tagrelay/tagrelay.toml"]
