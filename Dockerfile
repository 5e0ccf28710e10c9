# gossd, static and alone in its image:
#   docker build -t gossd .
# The last stage needs /out/$TARGETARCH/gossd and an empty /out/data from any source: scripts/image.sh gives it programs that
# are built already, for one kind of processor or more. Without BuildKit, TARGETARCH is empty, which does no harm.

ARG RUST_IMAGE=rust:1-slim-bookworm
FROM ${RUST_IMAGE} AS build
ARG TARGETARCH
WORKDIR /src
COPY . .
# With an explicit target, procedural macros, which the compiler loads, stay dynamic.
RUN target=$(rustc -vV | sed -n 's/^host: //p') \
 && RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release --target "$target" --bin gossd \
 && mkdir -p /out/data "/out/$TARGETARCH" \
 && cp "target/$target/release/gossd" "/out/$TARGETARCH/"

FROM scratch
ARG TARGETARCH
COPY --from=build /out/$TARGETARCH/gossd /gossd
# The journal and the control socket; a new volume here gets this owner.
COPY --from=build --chown=65532:65532 /out/data /data
# With an arena for each thread, glibc's allocator keeps a tenth more memory over the weeks.
ENV GOSSD_DATA_DIR=/data GOSSD_CONTROL=/data/gossd.sock MALLOC_ARENA_MAX=1
USER 65532:65532
VOLUME /data
# Gossip. gost calls the plugin at 127.0.0.1:8000: let it share this container's network.
EXPOSE 8002/tcp 8002/udp
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["/gossd", "healthcheck"]
ENTRYPOINT ["/gossd"]
CMD ["run"]
