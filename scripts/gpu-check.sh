#!/usr/bin/env bash
# Checks and measures what runs on this machine's GPU: `gpu-check.sh OUTDIR [--provider cpu] [--small]`.
#
# It prints a table, writes gpu-check.json into OUTDIR, and fails if a check fails. It needs no network and no compiler:
# run `gpu-pack.sh FOLDER` on a machine that has both, copy FOLDER here, and run the copy of this script in it. In the
# repository itself it takes what `gpu-pack.sh target/gpu` made. It takes less than 8 minutes; `--provider cpu --small`
# rehearses it on a processor in one or two. PyTorch, if Python 3 has it, gives the figures to compare with.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
here=$(cd "$(dirname "$0")" && pwd)
[ -f "$here/gpu" ] || here=$(cd "$here/../target/gpu" 2>/dev/null && pwd) || { echo "run scripts/gpu-pack.sh target/gpu first" >&2; exit 2; }
provider=cuda small=
while [ $# -gt 0 ]; do
    case $1 in
    --provider) provider=$2; shift ;;
    --small) small=--small ;;
    *) echo "unknown argument $1" >&2; exit 2 ;;
    esac
    shift
done

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python=$(command -v python3 || true)

# ONNX Runtime with CUDA comes in parts. It is unpacked in the layout of a Python environment, beside a link to the CUDA
# libraries of the environment in use.
unpack() { # NAME: puts NAME.xz together from its parts
    python_xz=(python3 -c 'import lzma,shutil,sys; shutil.copyfileobj(lzma.open(sys.stdin.buffer), sys.stdout.buffer)')
    if command -v xz >/dev/null; then cat "$here/$1".xz.part* | xz -d; else cat "$here/$1".xz.part* | "${python_xz[@]}"; fi
}
if ls "$here"/capi.tar.xz.part* >/dev/null 2>&1; then
    site=$scratch/site-packages
    mkdir -p "$site"
    unpack capi.tar | tar -x -C "$site"
    found=$([ -z "$python" ] || "$python" -c 'import importlib.util as u, pathlib as p; s = u.find_spec("nvidia"); print(list(s.submodule_search_locations)[0] if s else "")' 2>/dev/null || true)
    [ -z "$found" ] || ln -s "$found" "$site/nvidia"
    ORT_DYLIB_PATH=$(ls "$site"/onnxruntime/capi/libonnxruntime.so.* | head -n 1)
    export ORT_DYLIB_PATH
fi

cp "$here/gpu" "$scratch/gpu"
chmod +x "$scratch/gpu"
arguments=(--provider "$provider" --models "$here/models" --out "$out" $small)
rm -f "$out"/ours.json "$out"/torch.json "$out"/lengths-*.json
driver=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo none)
processor=$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)
printf '{"date": "%s", "gpu": "%s", "processor": "%s"}\n' "$(date -u +%F)" "$(echo "$driver" | tr '\n' ' ')" "$processor" >"$out/machine.json"
echo "gpu: $driver"
timeout 270 "$scratch/gpu" check "${arguments[@]}" || echo "the check was cut short" >&2
if [ -n "$python" ]; then
    timeout 180 "$python" -P "$here/gpu_peer.py" --binary "$scratch/gpu" "${arguments[@]}" || echo "torch's figures are missing or cut short" >&2
else
    echo "PyTorch is left out: there is no python3"
fi
status=0
"$scratch/gpu" table --out "$out" || status=1
exit "$status"
