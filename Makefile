# Tutti - `make run` starts the server, `make test` runs every test, `make help` lists the rest.
# What you may set: CC CFLAGS LDFLAGS SAN PREFIX DESTDIR ARGS FUZZ_SECONDS; V=1 shows commands.
comma   := ,
SAN     ?=
B       ?= build/$(if $(SAN),$(subst $(comma),-,$(SAN)),release)

CFLAGS  ?= -O2 -g
PREFIX  ?= /usr/local
SANITIZE := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
# CFLAGS is the user's and comes last; what the code needs is here, so `make CFLAGS=-O0` works.
# -ffp-contract=off: a result must not depend on what the compiler chooses to fuse.
NEEDED   = -std=c17 -D_GNU_SOURCE -I. -MMD -MP -fPIC -fvisibility=hidden -ffp-contract=off \
           -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
CC_ALL   = $(CC) $(NEEDED) $(LEVEL) $(SANITIZE) $(CFLAGS)

LIB_SRC := $(wildcard kernels/base/*.c kernels/*.c kernels/cpu/*.c models/*.c models/nn/*.c \
             tokenizers/*.c tokenizers/text/*.c tokenizers/image/*.c samplers/*.c \
             samplers/masked/*.c samplers/image/*.c samplers/search/*.c samplers/verify/*.c \
             samplers/constraint/*.c)
ifeq ($(findstring x86_64,$(shell $(CC) -dumpmachine)),)
LIB_SRC := $(filter-out kernels/cpu/avx%.c,$(LIB_SRC))
endif
SRV_SRC := $(filter-out server/main.c,$(wildcard server/*.c server/http/*.c server/api/*.c \
             server/bench/*.c server/scheduler/*.c server/search/*.c))
SRV_ASM := $(wildcard server/http/*.S)
WEB     := $(sort $(wildcard web/*.html web/*.js web/*.css web/*.svg))
LIB     := $(LIB_SRC:%.c=$(B)/%.o)
SRV     := $(SRV_SRC:%.c=$(B)/%.o) $(SRV_ASM:%=$(B)/%.o)
TEST    := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/*/test_*.c))
BENCH   := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/bench/bench_*.c))
# What the benchmarks share; linked into each.
BENCH_OBJ := $(patsubst %.c,$(B)/%.o,$(filter-out tests/bench/bench_%,$(wildcard tests/bench/*.c)))
REPLAY  := $(if $(wildcard tests/golden/*.c),$(B)/tests/golden/replay)
REPLAY_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard tests/golden/*.c))
LIBS    := -lcjson -lpcre2-8 -lutf8proc -lxxhash -ldl -lpthread -lm
SRVLIBS := -lmicrohttpd -lpng -lz

NVCC    ?= $(firstword $(wildcard $(or $(CUDA_HOME),/usr/local/cuda)/bin/nvcc) \
             $(shell command -v nvcc 2>/dev/null))
HAVE_DNNL := $(shell printf '\#include <dnnl.h>\n' | $(CC) -E -x c - >/dev/null 2>&1 && echo yes)
PLUGINS := $(if $(HAVE_DNNL),$(B)/tutti-onednn.so) $(if $(NVCC),$(B)/tutti-cuda.so)
# Commands are long: say what is made, show how with V=1.
SAY      = @$(if $(V),:,echo '  $(1) $@');
Q       := $(if $(V),,@)
# A second run of this file after packages were installed: use every core unless told otherwise.
AGAIN    = $(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))

all: $(B)/tutti $(PLUGINS) ## the program, and the plug-ins whose tools are here
	@$(if $(HAVE_DNNL),:,echo "left out: tutti-onednn.so (needs libdnnl-dev); only AMX processors miss it")
	@$(if $(NVCC),:,echo "left out: tutti-cuda.so (needs the CUDA 13 toolkit: nvcc); no GPU is used without it")

run: ## install what is missing (apt), build, serve http://127.0.0.1:8080/ (ARGS=... for options)
	@tests/packages.sh build
	@$(AGAIN) all
	@exec $(B)/tutti serve $(ARGS)

test: ## install what the tests need, run every test; ends with "N passed, N failed"
	@tests/packages.sh test
	@$(AGAIN) all programs
	@B=$(B) tests/all.sh $(TEST)

check: all $(TEST) ## C unit tests alone (installs nothing, no browser); SAN=address,undefined
	@tests/run.sh $(TEST)

lint: ## include rules and form of the sources; cppcheck when it is there
	@CPPCHECK=1 tests/lint/run.sh

programs: $(TEST) $(REPLAY) $(BENCH)

bench: all $(BENCH) ## measure; prints the machine and the numbers
	@set -e; for b in $(BENCH); do echo "== $$b"; $$b; done; \
	echo "== tutti bench"; $(B)/tutti bench; \
	$(B)/tutti bench --only forwards --shape tests/bench/shapes/llada-170m

install: all ## copy into $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/tutti \
	    $(DESTDIR)$(PREFIX)/share/tutti/models $(DESTDIR)$(PREFIX)/share/doc/tutti
	install -m 755 $(B)/tutti $(DESTDIR)$(PREFIX)/bin/tutti
	$(if $(PLUGINS),install -m 644 $(PLUGINS) $(DESTDIR)$(PREFIX)/lib/tutti/)
	set -e; for m in $(wildcard models/demo/*/); do \
	    d=$(DESTDIR)$(PREFIX)/share/tutti/models/$$(basename $$m); \
	    (cd $$m && find . -type f) | while read -r f; do install -D -m 644 $$m$$f $$d/$$f; done; done
	install -m 644 README.md LICENSE NOTICE $(DESTDIR)$(PREFIX)/share/doc/tutti/

clean: ## remove build/
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

$(B)/libtutti.a: $(LIB)
	$(call SAY,AR) rm -f $@
	$(Q)$(AR) rcs $@ $^
$(B)/libserver.a: $(SRV)
	$(call SAY,AR) rm -f $@
	$(Q)$(AR) rcs $@ $^
$(B)/%.o: %.c
	$(call SAY,CC) mkdir -p $(@D)
	$(Q)$(CC_ALL) $(CPPFLAGS) -c -o $@ $<
# The page's files are bytes in the program; the list of them is made here.
%/server/http/assets.inc: $(WEB) Makefile
	@mkdir -p $(@D)
	@printf '    asset "%s"\n' $(notdir $(WEB)) >$@
%/server/http/assets.S.o: server/http/assets.S %/server/http/assets.inc
	$(Q)$(CC) -I. -I$(@D) -c -o $@ $<
# Faster versions for newer processors, chosen when the program starts.
%/kernels/cpu/avx2.o: LEVEL = -mavx2 -mfma
%/kernels/cpu/avx512.o: LEVEL = -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma
%/kernels/cpu/avx512_bf16.o: LEVEL = -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mavx512bf16

$(B)/tutti: $(B)/server/main.o $(B)/libserver.a $(B)/libtutti.a
	$(call SAY,LD) :
	$(Q)$(CC) $(SANITIZE) $(LDFLAGS) -rdynamic -o $@ $^ $(SRVLIBS) $(LIBS)
$(B)/tutti-onednn.so: $(patsubst %.c,$(B)/%.o,$(wildcard kernels/onednn/*.c)) \
                      $(B)/kernels/base/err.o $(B)/kernels/base/pool.o $(B)/kernels/tensor.o
	$(call SAY,LD) :
	$(Q)$(CC) $(SANITIZE) -shared $(LDFLAGS) -o $@ $^ -ldnnl -lm
# The CUDA plug-in holds machine code for Ampere and Hopper, and PTX for what comes after; files that
# use Hopper's own instructions hold nothing else. The driver is found at run time.
CUDA_HOPPER := $(wildcard kernels/cuda/*hopper*.cu)
CUDA_ARCH    = $(if $(filter $(CUDA_HOPPER),$<),-gencode arch=compute_90a$(comma)code=sm_90a,\
               -gencode arch=compute_80$(comma)code=sm_80 -gencode arch=compute_90$(comma)code=sm_90 \
               -gencode arch=compute_90$(comma)code=compute_90)
CUDA_OBJ    := $(patsubst %.c,$(B)/%.o,$(wildcard kernels/cuda/*.c)) \
               $(patsubst %.cu,$(B)/%.cu.o,$(wildcard kernels/cuda/*.cu))
$(B)/kernels/cuda/%.o: CPPFLAGS += -isystem $(dir $(NVCC))../include
$(B)/%.cu.o: %.cu
	$(call SAY,NVCC) mkdir -p $(@D)
	$(Q)$(NVCC) -std=c++17 -O3 -I. -MMD -MP -MF $(@:.o=.d) $(CUDA_ARCH) \
	    -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra -c -o $@ $<
$(B)/tutti-cuda.so: $(CUDA_OBJ) $(B)/kernels/base/err.o $(B)/kernels/base/pool.o $(B)/kernels/tensor.o
	$(call SAY,LD) :
	$(Q)$(NVCC) -shared -cudart static -Xlinker -z -Xlinker defs -o $@ $^ -ldl
$(B)/tests/golden/replay: $(REPLAY_OBJ) $(B)/libserver.a $(B)/libtutti.a
	$(call SAY,LD) :
	$(Q)$(CC) $(SANITIZE) $(LDFLAGS) -o $@ $^ $(SRVLIBS) $(LIBS)
$(B)/tests/bench/%: $(B)/tests/bench/%.o $(BENCH_OBJ) $(B)/libserver.a $(B)/libtutti.a
	$(call SAY,LD) :
	$(Q)$(CC) $(SANITIZE) $(LDFLAGS) -o $@ $^ $(SRVLIBS) $(LIBS)
$(B)/tests/%: $(B)/tests/%.o $(B)/libserver.a $(B)/libtutti.a
	$(call SAY,LD) mkdir -p $(@D)
	$(Q)$(CC) $(SANITIZE) $(LDFLAGS) -o $@ $^ $(SRVLIBS) $(LIBS) -lcmocka

# Fuzzing: the same sources with clang and its sanitizers, in a folder of their own.
F           := build/fuzz
FUZZ_CC     ?= clang-14
FUZZ_SECONDS ?= 60
FUZZ        := $(patsubst tests/%.c,$(F)/tests/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_SAN    := address,undefined -fno-sanitize-recover=undefined
FUZZ_OBJ    := $(LIB_SRC:%.c=$(F)/%.o) $(SRV_SRC:%.c=$(F)/%.o) $(SRV_ASM:%=$(F)/%.o)

fuzz: ## build tests/fuzz/fuzz_*.c with clang-14, run each FUZZ_SECONDS (60)
	@tests/packages.sh fuzz
	@$(AGAIN) $(FUZZ)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tests/fuzz.sh $(FUZZ)
$(F)/%.o: %.c
	$(call SAY,CC) mkdir -p $(@D)
	$(Q)$(FUZZ_CC) $(NEEDED) $(LEVEL) -O1 -g -fsanitize=fuzzer-no-link,$(FUZZ_SAN) -c -o $@ $<
$(F)/libfuzzed.a: $(FUZZ_OBJ)
	$(call SAY,AR) rm -f $@
	$(Q)$(AR) rcs $@ $^
$(F)/tests/%: $(F)/tests/%.o $(F)/libfuzzed.a
	$(call SAY,LD) :
	$(Q)$(FUZZ_CC) -fsanitize=fuzzer,$(FUZZ_SAN) -o $@ $^ $(SRVLIBS) $(LIBS)

.PHONY: all run test check lint programs bench install clean help fuzz
.SECONDARY:
-include $(LIB:.o=.d) $(SRV:.o=.d) $(TEST:=.d) $(BENCH:=.d) $(REPLAY_OBJ:.o=.d) \
         $(patsubst %.c,$(B)/%.d,$(wildcard kernels/onednn/*.c)) \
         $(FUZZ_OBJ:.o=.d) $(FUZZ:=.d) $(B)/server/main.d $(CUDA_OBJ:.o=.d)
