# `just` lists the recipes. https://just.systems

# The recipes.
default:
    @just --list

# Builds the program: target/release/cilbench.
build:
    cargo build --release

# All tests.
test:
    cargo test --release --workspace

# Formatting, lints, and the links and line lengths of documents.
lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- -D warnings
    python3 docs/check.py

# Licences, banned crates and sources of dependencies.
deny:
    cargo deny check licenses bans sources

# The API documentation, without warnings.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps

# Replays the recorded trajectories: the authors', then those of the independent implementation.
verify *ARGS:
    cargo run --release -- verify {{ARGS}}
    cargo run --release -- verify --fixtures methods/fixtures/independent {{ARGS}}

# The user guide as a book: target/book.
book:
    mdbook build

# Formatting, lints, API documentation and tests, as on a clean clone.
ci:
    .ci/run
