#!/usr/bin/env bash
# From nothing to checked training shards and to composites: install, draw a small demonstration dataset, pack it, check
# it, show it; then put objects into the bundled pictures with the bundled model.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh infer
demo=data/demo
.venv/bin/pics build-shards synth --out "$demo/shards" --limit 60 --shard-size 20 --overwrite \
    --contact-sheet "$demo/contact_sheet.png"
.venv/bin/pics build-shards --check "$demo/shards"
echo
results=results/quickstart
.venv/bin/pics infer --input sample --output "$results" --sheet "$results/sheet.png" --overwrite
echo
echo "made: $demo/shards (training shards) and $demo/contact_sheet.png (what is in them: open it)"
echo "      $results/composed (composites) and $results/sheet.png (inputs and results side by side: open it)"
echo "next: .venv/bin/pics infer --background room.jpg --object lamp.png --box 210,340,180,120"
echo "      .venv/bin/pics build-shards lvis --raw /path/to/COCO"
