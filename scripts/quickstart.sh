#!/usr/bin/env bash
# From nothing to checked training shards: install, make a small demonstration dataset, build, check, show.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
demo=data/demo
[ -f "$demo/COCO/lvis_v1/lvis_v1_val.json" ] || .venv/bin/python scripts/demo_data.py "$demo" --lvis 60
.venv/bin/pics build-shards lvis --raw "$demo" --out "$demo/shards" --area-ratio 0.1 --shard-size 20 --overwrite \
    --contact-sheet "$demo/contact_sheet.png"
.venv/bin/pics build-shards --check "$demo/shards"
echo
echo "made: $demo/shards (training shards) and $demo/contact_sheet.png (what is in them: open it)"
echo "next: .venv/bin/pics build-shards lvis --raw /path/to/COCO"
