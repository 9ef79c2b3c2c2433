#!/usr/bin/env bash
# Puts ONNX Runtime's shared library into .onnxruntime/, from the `onnxruntime` Python wheel, by pip, unless it is there
# already. The library gets its name only after its hash has been checked, since loading a truncated one would kill the
# process.
set -euo pipefail
cd "$(dirname "$0")/.."

version=1.32.0
case "$(uname -s)-$(uname -m)" in
Linux-x86_64)
    platform=manylinux_2_28_x86_64 library=libonnxruntime.so.$version
    wheel_hash=5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d
    library_hash=6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f ;;
Linux-aarch64)
    platform=manylinux_2_28_aarch64 library=libonnxruntime.so.$version
    wheel_hash=2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c
    library_hash=49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a ;;
Darwin-arm64)
    platform=macosx_14_0_arm64 library=libonnxruntime.$version.dylib
    wheel_hash=366b9e53d07812cc5c92822cecf7563b76a8a0f32ba3bb8dd232a206ac3bcb6c
    library_hash=fa585fabbea65b823b9a8f7e27d46aee3989d1be7e36b528203d3a1fd613aae7 ;;
*)
    echo "no pinned ONNX Runtime for $(uname -s) $(uname -m): install one with 'pip install onnxruntime'" >&2
    echo "in the active Python environment, or name its library in ORT_DYLIB_PATH" >&2
    exit 1 ;;
esac

target=.onnxruntime
sha256() { python3 -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$1"; }

[ -f "$target/$library" ] && exit 0
if ! python3 -m pip --version >/dev/null 2>&1; then
    echo "python3 with pip is needed to fetch ONNX Runtime (Debian: apt-get install python3-pip)" >&2
    exit 1
fi

mkdir -p "$target"
scratch=$(mktemp -d "$target/.incoming-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
echo "fetching ONNX Runtime $version for $platform" >&2
echo "onnxruntime==$version --hash=sha256:$wheel_hash" >"$scratch/requirements.txt"
PIP_ROOT_USER_ACTION=ignore python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
    --only-binary=:all: --implementation cp --python-version 3.11 --platform "$platform" \
    --dest "$scratch" --requirement "$scratch/requirements.txt"
python3 - "$scratch" "$library" <<'PYTHON'
import glob, os, sys, zipfile
scratch, library = sys.argv[1:]
with zipfile.ZipFile(glob.glob(f"{scratch}/*.whl")[0]) as wheel:
    for name in (f"capi/{library}", "LICENSE", "ThirdPartyNotices.txt"):
        with open(os.path.join(scratch, os.path.basename(name)), "wb") as file:
            file.write(wheel.read(f"onnxruntime/{name}"))
PYTHON
if [ "$(sha256 "$scratch/$library")" != "$library_hash" ]; then
    echo "the library in the wheel does not have the expected hash" >&2
    exit 1
fi
mv "$scratch/LICENSE" "$scratch/ThirdPartyNotices.txt" "$target/"
mv "$scratch/$library" "$target/$library"
