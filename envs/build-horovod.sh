#!/bin/sh
# Horovod for the Python given (default: .venv/bin/python): built once per Python, torch and MPI, then taken from the cache.
#
#   make horovod            or            envs/build-horovod.sh /path/to/python
#
# Gloo always; MPI where mpicc is found. On a GPU machine HOROVOD_GPU_OPERATIONS=NCCL (with CUDA and NCCL installed) is
# passed on to the build; without it gradients travel through the host's memory.
set -eu
PYTHON=${1:-.venv/bin/python}
case $PYTHON in /*) ;; */*) PYTHON=$PWD/$PYTHON ;; esac
VERSION=0.28.1    # the last release (June 2023)
SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT

# Before anything is asked for: what is missing, in one message.
missing=
for tool in cmake g++ make; do command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"; done
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends cmake g++ make >/dev/null
    else
        echo "error: building Horovod needs$missing; install them (on a cluster: module load) and run this again" >&2
        exit 1
    fi
fi
mpi=gloo
command -v mpicc >/dev/null 2>&1 && command -v mpirun >/dev/null 2>&1 && mpi=mpi

# A wheel fits one Python, one torch and one choice of MPI and GPU.
tag=$("$PYTHON" -c 'import sys, torch; print(f"cp{sys.version_info[0]}{sys.version_info[1]}-torch{torch.__version__}")')
wheels=${MDLATENT_CACHE:-$HOME/.cache/mdlatent}/wheels/horovod-$VERSION-$tag-$mpi-${HOROVOD_GPU_OPERATIONS:-cpu}
if ! ls "$wheels"/horovod-*.whl >/dev/null 2>&1; then
    echo "building Horovod $VERSION for $tag ($mpi): 2 to 4 minutes on two cores"
    "$PYTHON" -m pip install --quiet 'setuptools<81' wheel packaging 'cffi>=1.4' cloudpickle psutil pyyaml
    # Horovod asks for C++14, the headers of torch need C++17.
    # shellcheck disable=SC2016
    printf '%s\n' 'set(CMAKE_PROJECT_INCLUDE "${CMAKE_CURRENT_LIST_FILE}")' \
        'set(CMAKE_CXX14_STANDARD_COMPILE_OPTION "-std=c++17")' >"$SCRATCH/cxx17.cmake"
    if [ $mpi = mpi ]; then export HOROVOD_WITH_MPI=1; else export HOROVOD_WITHOUT_MPI=1; fi
    CMAKE_TOOLCHAIN_FILE="$SCRATCH/cxx17.cmake" CMAKE_POLICY_VERSION_MINIMUM=3.5 MAKEFLAGS="-j$(nproc)" \
    HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITH_GLOO=1 \
        "$PYTHON" -m pip wheel --no-cache-dir --no-build-isolation --no-deps -w "$SCRATCH/wheels" \
        "horovod==$VERSION" >"$SCRATCH/log" 2>&1 \
        || { tail -n 40 "$SCRATCH/log" >&2; echo "error: Horovod did not build; its last messages stand above" >&2; exit 1; }
    mkdir -p "$wheels"
    mv "$SCRATCH"/wheels/horovod-*.whl "$wheels"/
fi
"$PYTHON" -m pip install --quiet 'cffi>=1.4' cloudpickle packaging psutil pyyaml
"$PYTHON" -m pip install --quiet --no-deps --force-reinstall "$wheels"/horovod-*.whl
# From elsewhere, lest a folder of the same name be imported.
cd / && "$PYTHON" -c 'import horovod.torch as hvd; print("Horovod: Gloo", hvd.gloo_built(), "MPI", hvd.mpi_built(), "NCCL", bool(hvd.nccl_built()))'
