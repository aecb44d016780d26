#!/usr/bin/env bash
# Everything that needs a GPU, on a machine with one and no network: a checkout, and an environment with the
# package, onnxruntime-gpu with NVIDIA's libraries, triton, numpy; for the peers torch and diffusers (README.md
# says how it gets there). Kernels against their references on fresh random data, the loop against the CPU's, the
# memory checker where it is installed, times, the engine against its peers; then a table in benchmarks/results.
# Without arguments all parts run. A part ends after 290 s at most, and what it had measured stays; parts that
# are complete are left out the next time:
#   benchmarks/gpu/check.sh build kernels parity
#   benchmarks/gpu/check.sh contest:sd15 contest:vae512 report
# REHEARSE=1 runs the contests with tiny networks on the CPU and a driver that is none.
set -uo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
out=$(realpath -m "${OUT:-build/gpu-check}")
rehearse=${REHEARSE:+--rehearse}
export TEXTOPIA_KERNELS=${TEXTOPIA_KERNELS:-$PWD/build/kernels}
# What torch.compile has found out stays for the next call.
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$out/inductor}
mkdir -p "$out"
status=0
contests="sd15 vae512 vae1024 turbo sdxl attention40 attention64 attention80 attention160 combine64 combine128 loop"
everything="build kernels parity sanitize times export:sd15 export:turbo export:sdxl"
for task in $contests; do everything+=" contest:$task"; done
run() { timeout 290 "$@" || status=1; }
part() { run "$python" -m benchmarks.gpu.check "$1" --out "$out" --kernels "$TEXTOPIA_KERNELS" "${@:2}"; }
contest() { run "$python" -W ignore -m benchmarks.gpu.contest "$@" --out "$out" $rehearse; }

for step in "${@:-$everything report}"; do
  for name in $step; do
    case $name in
      build)
        arch=$("$python" -m benchmarks.gpu.check architecture --out "$out") || exit 1
        [ -e "$TEXTOPIA_KERNELS/sm_$arch.zip" ] || [ -e "$TEXTOPIA_KERNELS/ptx.zip" ] ||
          run "$python" -m kernels.build --out "$TEXTOPIA_KERNELS" --arch "$arch"
        ;;
      kernels | parity | times) [ -e "$out/$name.json" ] || part "$name" ;;
      sanitize)
        if command -v compute-sanitizer >/dev/null; then
          passed=true
          timeout 290 compute-sanitizer --tool memcheck --error-exitcode 9 "$python" -m benchmarks.gpu.check \
            kernels --out "$(mktemp -d)" --kernels "$TEXTOPIA_KERNELS" || { passed=false status=1; }
          echo "[{\"name\": \"compute-sanitizer memcheck\", \"passed\": $passed}]" >"$out/sanitize.json"
        else
          echo "sanitize: compute-sanitizer is not installed"
        fi
        ;;
      export:*) contest export "${name#export:}" ;;
      contest:*) contest "${name#contest:}" ;;
      report) part report ;;
      *) echo "unknown part: $name" >&2; exit 2 ;;
    esac
  done
done
exit $status
