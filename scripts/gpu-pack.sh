#!/usr/bin/env bash
# Puts together what gpu-check.sh needs on a machine without a network: `gpu-pack.sh FOLDER [--whole] [--cpu]`.
#
# The folder gets the benchmark's binary, the models, the scripts, and ONNX Runtime with its CUDA provider in parts of
# at most 40 MiB. gpu_prune.py keeps only the provider's code for the chips in CHIPS (default "90", an H100). --whole
# keeps all of it, in four times as many parts: use it for other chips, or if the small one does not load. --cpu leaves
# ONNX Runtime out, to rehearse with the library that is found. The script needs cargo, xz, and python3 with pip and the
# packages of the Python tests (PYTHON names another one, such as .python/bin/python). PROFILE and FEATURES are cargo's;
# dev and default,cloud rehearse with what the tests have built.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} version=1.31.1 profile=${PROFILE:-release} features=${FEATURES:-onnx} kept=pruned
for argument in "$@"; do
    case $argument in
    --whole) kept=whole ;;
    --cpu) kept=none ;;
    *) echo "unknown argument $argument" >&2; exit 2 ;;
    esac
done

binary=$(cargo build --quiet --profile "$profile" --no-default-features --features "$features" --bench gpu --message-format json | "$python" -c '
import json, sys
built = [json.loads(line) for line in sys.stdin]
print(next(b["executable"] for b in built if b.get("executable") and b["target"]["name"] == "gpu"))')
strip -o "$folder/gpu" "$binary"
cp scripts/gpu-check.sh scripts/gpu_peer.py "$folder/"
"$python" scripts/gpu_models.py "$folder/models"
rm -f "$folder"/capi.tar.xz.part*
if [ "$kept" != none ]; then
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
        --python-version 3.12 --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
        --dest "$scratch" "onnxruntime-gpu==$version"
    "$python" -m zipfile -e "$scratch"/onnxruntime_gpu-*.whl "$scratch/wheel"
    capi=$scratch/wheel/onnxruntime/capi
    if [ "$kept" = pruned ]; then
        provider=$capi/libonnxruntime_providers_cuda.so
        "$python" scripts/gpu_prune.py "$provider" "$provider.pruned" "${CHIPS:-90}"
        mv "$provider.pruned" "$provider"
    fi
    tar -c -C "$scratch/wheel" onnxruntime/capi/libonnxruntime.so."$version" \
        onnxruntime/capi/libonnxruntime_providers_shared.so onnxruntime/capi/libonnxruntime_providers_cuda.so |
        xz -9 -T1 | split --bytes=40M --numeric-suffixes - "$folder/capi.tar.xz.part"
fi
du -sh "$folder"/* | sed "s|$folder/||"
