#!/usr/bin/env bash
# Brings what check.sh needs to a machine without a network that takes files in pieces.
#   bring.sh prepare 3.12      here: wheels for that Python, ours and the kernels, in build/bring/piece-*
#   bring.sh join              there, with build/bring/piece-* in place: build/bring/env, a folder of packages
# PYTHON builds our wheel and has to be of that version; KERNELS_PYTHON has triton 3.9.0; ARCH is the GPU's.
set -euo pipefail
cd "$(dirname "$0")/../.."
piece_bytes=${PIECE_BYTES:-62914560} # 60 MiB
folder=build/bring
case ${1:-} in
  prepare)
    version=${2:?the version of Python over there, as in 3.12}
    python=${PYTHON:-python3}
    [ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = "$version" ] ||
      { echo "PYTHON has to be Python $version: our wheel is built with it" >&2; exit 2; }
    rm -rf "$folder" && mkdir -p "$folder/wheels"
    "${KERNELS_PYTHON:-$python}" -m kernels.build --out build/kernels --arch "${ARCH:-90}"
    "$python" -m pip wheel . --no-deps --wheel-dir "$folder/wheels" -C cmake.define.TEXTOPIA_GPU_KERNELS="$PWD/build/kernels"
    # torch, triton, numpy, onnx and NVIDIA's libraries are there; the rest comes along without what it needs,
    # so that nothing of it is replaced.
    "$python" -m pip download --no-deps --only-binary=:all: --python-version "$version" \
      --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux2014_x86_64 \
      --dest "$folder/wheels" ${PACKAGES:-onnxruntime-gpu diffusers transformers huggingface-hub tokenizers \
      safetensors regex onnx-ir onnxscript pillow tqdm filelock platformdirs typer rich httpx httpcore h11 anyio \
      certifi idna packaging pyyaml requests urllib3 charset-normalizer importlib-metadata zipp ml-dtypes hf-xet}
    tar -C "$folder" -cf "$folder/all.tar" wheels
    split --bytes="$piece_bytes" --numeric-suffixes --suffix-length=2 "$folder/all.tar" "$folder/piece-"
    (cd "$folder" && sha256sum piece-* >pieces.sha256 && rm -r all.tar wheels)
    ls -l "$folder"
    ;;
  join)
    python=${PYTHON:-python3}
    (cd "$folder" && sha256sum --check --quiet pieces.sha256 && cat piece-* | tar -xf -)
    # A folder before the others on PYTHONPATH: the packages that are there stay as they are, and
    # onnxruntime-gpu hides the onnxruntime for CPUs.
    "$python" -m pip install --no-index --no-deps --target "$folder/env" "$folder"/wheels/*.whl
    echo "export PYTHONPATH=$PWD/$folder/env"
    ;;
  *) sed -n '2,5p' "$0"; exit 2 ;;
esac
