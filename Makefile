# Tutti - see `make help`.
comma   := ,
NVCC    ?= $(shell command -v nvcc)
SAN     ?=
B       ?= build/$(if $(SAN),$(subst $(comma),-,$(SAN)),release)

CFLAGS  ?= -O2 -g
PREFIX  ?= /usr/local
SANITIZE := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
# CFLAGS is the user's and comes last; what the code needs is here, so `make CFLAGS=-O0` works.
# -ffp-contract=off: a result must not depend on what the compiler chooses to fuse.
CC_ALL   = $(CC) -std=c17 -D_GNU_SOURCE -I. -MMD -MP -fPIC -fvisibility=hidden -ffp-contract=off \
           -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla \
           $(SANITIZE) $(CFLAGS)

LIB_SRC := $(wildcard kernels/base/*.c kernels/*.c kernels/cpu/*.c models/*.c models/nn/*.c \
             tokenizers/*.c tokenizers/text/*.c samplers/*.c samplers/masked/*.c)
SRV_SRC := $(filter-out server/main.c,$(wildcard server/*.c server/http/*.c server/api/*.c))
LIB     := $(LIB_SRC:%.c=$(B)/%.o)
SRV     := $(SRV_SRC:%.c=$(B)/%.o) $(patsubst %.S,$(B)/%.o,$(wildcard server/http/*.S))
TEST    := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/*/test_*.c))
LIBS    := -lcjson -lpcre2-8 -lutf8proc -lxxhash -ldl -lpthread -lm
SRVLIBS := -lmicrohttpd -lpng

HAVE_DNNL := $(shell printf '\#include <dnnl.h>\n' | $(CC) -E -x c - >/dev/null 2>&1 && echo yes)
PLUGINS := $(if $(HAVE_DNNL),$(B)/tutti-onednn.so)

all: $(B)/tutti $(PLUGINS) ## the program and the plug-ins whose tools are here
	@$(if $(HAVE_DNNL),:,echo "left out: tutti-onednn.so (needs libdnnl-dev); GEMM runs on the plain twin")

$(B)/libtutti.a: $(LIB)
	@rm -f $@
	$(AR) rcs $@ $^
$(B)/libserver.a: $(SRV)
	@rm -f $@
	$(AR) rcs $@ $^
$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC_ALL) $(CPPFLAGS) -c -o $@ $<
$(B)/%.o: %.S
	@mkdir -p $(@D)
	$(CC) -I. -MMD -MP -c -o $@ $<
$(B)/kernels/cpu/avx2.o: CC_ALL += -mavx2 -mfma -mf16c
$(B)/kernels/cpu/avx512.o: CC_ALL += -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma

$(B)/tutti: $(B)/server/main.o $(B)/libserver.a $(B)/libtutti.a
	$(CC) $(SANITIZE) $(LDFLAGS) -rdynamic -o $@ $^ $(SRVLIBS) $(LIBS)
$(B)/tutti-onednn.so: $(patsubst %.c,$(B)/%.o,$(wildcard kernels/onednn/*.c)) \
                      $(B)/kernels/base/err.o $(B)/kernels/base/pool.o $(B)/kernels/tensor.o
	$(CC) $(SANITIZE) -shared $(LDFLAGS) -o $@ $^ -ldnnl -lm
$(B)/tests/%: $(B)/tests/%.o $(B)/libserver.a $(B)/libtutti.a
	@mkdir -p $(@D)
	$(CC) $(SANITIZE) $(LDFLAGS) -o $@ $^ $(SRVLIBS) $(LIBS) -lcmocka

check: all $(TEST) ## C unit tests alone (no installing, no browser)
	@tests/run.sh $(TEST)
clean: ## remove build/
	rm -rf build
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

.PHONY: all check clean help
.SECONDARY:
-include $(LIB:.o=.d) $(SRV:.o=.d) $(TEST:=.d) $(B)/server/main.d
