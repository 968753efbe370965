#!/usr/bin/env bash
# Do the oldest and the newest versions that pyproject.toml admits work, and what does each extra take? In fresh environments,
# one after the other, each deleted at its end; a table in Markdown on stdout, what the commands say in build/bounds.log.
#
#   scripts/bounds.sh [ROW...]     base, an extra, lowest:EXTRA, lowest, newest.  [default: base lowest newest]
#   PYTHONS="python3.10 python3.13" scripts/bounds.sh lowest      interpreters.  [default: all from 3.10 to 3.14 there are]
#
# lowest: direct dependencies at their lower bounds (the lowest that has a wheel for the interpreter), theirs as new as may
# be; newest: everything. Both have the extras train and eval, and do what such a user does: shards of drawn scenes, a composite
# of a bundled sample, some steps of the tiny recipe, a composite by what they gave, an evaluation of some cases.
# An extra's row installs newest versions and does what the extra is for, as far as that needs no files from elsewhere;
# lowest:EXTRA does so with the oldest.
#
# uv installs, itself installed for the time of the run. It downloads a package once for all rows, and once for several runs
# where UV_CACHE_DIR names a folder; the seconds of a row are those with what was downloaded before.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

pythons=${PYTHONS:-}
for minor in 10 11 12 13 14; do
    [ -n "${PYTHONS:-}" ] || ! "python3.$minor" -c '' 2>/dev/null || pythons+=" python3.$minor"
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$root/build/bounds.log
mkdir -p build
: >"$log"
uv=$work/tool/bin/uv
export UV_CACHE_DIR=${UV_CACHE_DIR:-$work/downloads} PICS_CACHE=$work/cache
python3 -m venv "$work/tool"
"$work/tool/bin/python" -m pip install -q uv >>"$log" 2>&1

# Install what a row has into $work/env.
install() { # ROW PYTHON
    local into=(--python "$work/env/bin/python") extras=(--extra "${1#lowest:}")
    "$uv" venv -q --python "$2" "$work/env"
    case $1 in
    lowest*)
        [ "$1" != lowest ] || extras=(--extra train --extra eval)
        "$uv" pip compile -q --resolution lowest-direct --only-binary :all: "${into[@]}" "${extras[@]}" \
            "$root/pyproject.toml" -o "$work/lowest.txt"
        "$uv" pip install -q "${into[@]}" -r "$work/lowest.txt"
        "$uv" pip install -q "${into[@]}" --no-deps "$root"
        ;;
    newest) "$uv" pip install -q "${into[@]}" "$root[train,eval]" ;;
    base) "$uv" pip install -q "${into[@]}" "$root" ;;
    *) "$uv" pip install -q "${into[@]}" "$root[$1]" ;;
    esac
}

# Do what a user of the row does, in an empty folder.
use() { # base, an extra, lowest or newest
    local sample drawn steps served python=$work/env/bin/python pics=$work/env/bin/pics
    sample=$("$python" -c 'import pathlib, pics_cli; print(pathlib.Path(pics_cli.__file__).parent / "samples/egg_in_cup")')
    drawn=(--set source.size=128 --set source.view.turn=8 --workers 1 --overwrite)
    steps=(--steps 2 --batch-size 2 --set checkpoints.every=2 --set validation.every=2 --set validation.samples=2
        --set validation.sheet=2)
    case $1 in
    base | train | lora | wandb | all | lowest | newest)
        "$pics" build-shards synth --limit 16 --shard-size 8 "${drawn[@]}" --contact-sheet sheet.png
        "$pics" build-shards synth --split val --limit 4 "${drawn[@]}"
        "$pics" build-shards --check data/train/Synth --workers 1
        "$pics" build-shards --convert data/train/Synth --out compact --layout compact --workers 1
        ;;
    annotate) # by a network of random weights
        "$python" -c 'import pathlib; from pics_cli.core.segmentation import sam
sam.save_sam(sam.build_sam(sam.TINY), sam.TINY, pathlib.Path("sam"))'
        "$pics" check-sam --sam sam --device cpu --least 0
        ;;
    render)
        PYTHONPATH=$root/tests "$python" -c 'import pathlib; from helpers.rendered_raw import make_raw
make_raw(pathlib.Path("raw"))'
        "$pics" build-shards rendered --raw raw --limit 1 --workers 1 --set source.size=64 --set source.samples=1
        ;;
    ray) "$pics" build-shards synth --limit 4 --out by_ray "${drawn[@]}" --engine ray ;;
    ui)
        timeout 300 "$pics" ui --port 0 >address &
        served=$!
        until [ -s address ] || ! kill -0 $served; do sleep 1; done
        "$python" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=60)' "$(cat address)"
        kill $served
        ;;
    s3 | gs | az | sftp)
        "$python" -c 'import sys; from pics_cli.core.runtime.storage import location; location(f"{sys.argv[1]}://host/x")' "$1"
        ;;
    esac
    case $1 in
    infer | ui | all | lowest | newest) "$pics" infer --input "$sample" --output composed ;;
    esac
    case $1 in
    train | all | lowest | newest)
        "$pics" train --recipe tiny "${steps[@]}"
        "$pics" infer --input "$sample" --model LOGS/tiny/model --output by_mine
        ;;
    lora) # the tiny recipe is of a model of its own
        echo '{kind: training, name: lora, train: lora, data: {sets: {Synth: {shards: "{split}/Synth"}}, workers: 1}}' >lora.yaml
        "$pics" train --recipe ./lora.yaml "${steps[@]}" --base pics-mini --root-dir LOGS/lora
        "$pics" infer --input "$sample" --model pics-mini --lora LOGS/lora/adapter --output by_adapter
        ;;
    wandb) WANDB_MODE=offline "$pics" train --recipe tiny "${steps[@]}" --set log.wandb=true ;;
    esac
    case $1 in
    eval | all | lowest | newest) "$pics" eval --recipe synth_bench --limit 3 --output measured ;;
    esac
}

echo "| what | Python | packages | MB | seconds to install | torch | works |"
echo "| --- | --- | ---: | ---: | ---: | --- | --- |"
rows=("$@") failed=0
[ $# -gt 0 ] || rows=(base lowest newest)
for row in "${rows[@]}"; do
    for python in $pythons; do
        rm -rf "$work/env" "$work/use"
        mkdir "$work/use"
        echo "== $row, $python" >>"$log"
        began=$SECONDS size=- count=- seconds=- torch=- works="**not installed**"
        # Not as a condition, in which bash would go on after a command that fails.
        set +e
        (set -e; install "$row" "$python") >>"$log" 2>&1
        code=$?
        set -e
        if [ $code = 0 ]; then
            seconds=$((SECONDS - began))
            size=$(du -sm "$work/env" | cut -f1)
            "$uv" pip freeze -q --python "$work/env/bin/python" >"$work/versions"
            cat "$work/versions" >>"$log"
            count=$(wc -l <"$work/versions")
            torch=$(sed -n "s/^torch==//p" "$work/versions")
            set +e
            (set -e; cd "$work/use"; use "${row#lowest:}") >>"$log" 2>&1
            code=$?
            set -e
            if [ $code = 0 ]; then works=yes; else works="**no**"; fi
        fi
        [ "$works" = yes ] || failed=1
        echo "| $row | $("$python" -c 'import platform; print(platform.python_version())') | $count | $size | $seconds | ${torch:--} | $works |"
    done
done
exit $failed
