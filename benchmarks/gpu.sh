#!/usr/bin/env bash
# The checks and times of a GPU in one call, made for a machine that is lent for minutes and reaches
# no registry. Needs python3 with PyTorch for the card. WHEELS may name a folder with wheels of what
# else is missing there. Options go to gpu.py: benchmarks/gpu.sh --output gpu.md --data FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
site=$(mktemp -d)
install() { python3 -m pip install -q --no-index --no-deps --no-build-isolation --no-compile --target "$site" "$@"; }
if [ -n "${WHEELS:-}" ]; then install "$WHEELS"/*.whl; fi
install .
PYTHONPATH="$site:$PWD" PYTHONUNBUFFERED=1 exec python3 benchmarks/gpu.py "$@"
