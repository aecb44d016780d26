#!/usr/bin/env bash
# Everything that needs a GPU, on a machine with one and no network: a checkout, and an environment with the
# package, onnxruntime-gpu with NVIDIA's libraries, triton, numpy. Kernels against their references on fresh
# random data, the loop against the CPU's, the memory checker where it is installed, times; then a table in
# benchmarks/results. Without arguments all parts run; each can be run alone, in less than 5 minutes:
#   benchmarks/gpu/check.sh build | kernels | parity | sanitize | times | report
set -uo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
out=${OUT:-build/gpu-check}
export TEXTOPIA_KERNELS=${TEXTOPIA_KERNELS:-$PWD/build/kernels}
mkdir -p "$out"
status=0
run() { timeout 290 "$@" || status=1; }
part() { run "$python" -m benchmarks.gpu.check "$1" --out "$out" --kernels "$TEXTOPIA_KERNELS" "${@:2}"; }

for step in "${@:-build kernels parity sanitize times report}"; do
  for name in $step; do
    case $name in
      build)
        arch=$("$python" -m benchmarks.gpu.check architecture --out "$out") || exit 1
        [ -e "$TEXTOPIA_KERNELS/sm_$arch.zip" ] || run "$python" -m kernels.build --out "$TEXTOPIA_KERNELS" --arch "$arch"
        ;;
      kernels | parity | times) part "$name" ;;
      sanitize)
        if command -v compute-sanitizer >/dev/null; then
          run compute-sanitizer --tool memcheck --error-exitcode 9 "$python" -m benchmarks.gpu.check kernels \
            --out "$(mktemp -d)" --kernels "$TEXTOPIA_KERNELS"
          echo "[{\"name\": \"compute-sanitizer memcheck\", \"passed\": $([ $status = 0 ] && echo true || echo false)}]" \
            >"$out/sanitize.json"
        else
          echo "sanitize: compute-sanitizer is not installed"
        fi
        ;;
      report) part report ;;
      *) echo "unknown part: $name" >&2; exit 2 ;;
    esac
  done
done
exit $status
