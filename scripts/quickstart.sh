#!/usr/bin/env bash
# From nothing to checked training shards: install, draw a small demonstration dataset, pack it, check it, show it.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
demo=data/demo
.venv/bin/pics build-shards synth --out "$demo/shards" --limit 60 --shard-size 20 --overwrite \
    --contact-sheet "$demo/contact_sheet.png"
.venv/bin/pics build-shards --check "$demo/shards"
echo
echo "made: $demo/shards (training shards) and $demo/contact_sheet.png (what is in them: open it)"
echo "next: .venv/bin/pics build-shards lvis --raw /path/to/COCO"
