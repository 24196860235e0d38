# ward. `make` builds build/ward and build/libward.{a,so}; `make help` lists the rest.
#
#   make [VARIANT=release|debug|asan|ubsan|tsan] [CC=...] [CROSS=aarch64-linux-gnu-] [BUILD=DIR] [PREFIX=/usr/local]

VARIANT ?= release
CROSS   ?=
ifeq ($(origin CC),default)
CC      := $(CROSS)gcc
endif
AR      := $(CROSS)ar
PKG_CONFIG ?= $(CROSS)pkg-config
BUILD   ?= build$(if $(filter-out release,$(VARIANT)),/$(VARIANT))
PREFIX  ?= /usr/local
DESTDIR ?=
VERSION := $(shell sed -n 's/^\#define WARD_VERSION "\(.*\)"/\1/p' include/ward.h)
ABI     := $(firstword $(subst ., ,$(VERSION)))

ENGINE_PACKAGES := yajl libjpeg libpng libexif
CLI_PACKAGES    := libedit
TEST_PACKAGES   := cmocka

WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-qual -Wundef -Wvla
WERROR   ?= -Werror
CFLAGS_release := -O3 -g -fno-math-errno
CFLAGS_debug   := -O0 -g3
CFLAGS_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
CFLAGS_ubsan   := -O1 -g -fsanitize=undefined -fno-sanitize-recover=undefined
CFLAGS_tsan    := -O1 -g -fsanitize=thread
LDFLAGS_asan   := -fsanitize=address,undefined
LDFLAGS_ubsan  := -fsanitize=undefined
LDFLAGS_tsan   := -fsanitize=thread

# No contraction of a*b+c: the portable C gives the same result on every compiler and processor. Kernels ask for FMA themselves.
BASE_CFLAGS := -std=c11 -D_GNU_SOURCE -Iinclude -Isrc -fPIC -fvisibility=hidden -ffp-contract=off -pthread $(WARNINGS) $(WERROR) \
               $(CFLAGS_$(VARIANT)) $(shell $(PKG_CONFIG) --cflags $(ENGINE_PACKAGES) 2>/dev/null)
LIBS     := $(shell $(PKG_CONFIG) --libs $(ENGINE_PACKAGES) 2>/dev/null) -lm -pthread
CLI_LIBS := $(shell $(PKG_CONFIG) --libs $(CLI_PACKAGES) 2>/dev/null)
TEST_LIBS := $(shell $(PKG_CONFIG) --libs $(TEST_PACKAGES) 2>/dev/null)

MACHINE := $(shell $(CC) -dumpmachine | cut -d- -f1)
SRC := $(wildcard src/base/*.c src/model/*.c src/image/*.c src/kernels/*.c src/engine/*.c)
ifeq ($(MACHINE),x86_64)
SRC += $(wildcard src/kernels/x86/*.c)
endif
CLI_SRC := $(wildcard cli/*.c)
OBJ     := $(SRC:%.c=$(BUILD)/%.o)
CLI_OBJ := $(CLI_SRC:%.c=$(BUILD)/%.o)

# One file for each instruction set; only these may use its instructions.
$(BUILD)/src/kernels/x86/avx2.o:        ISA_CFLAGS := -mavx2 -mfma -mf16c
$(BUILD)/src/kernels/x86/avx512.o:      ISA_CFLAGS := -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq
$(BUILD)/src/kernels/x86/avx512_bf16.o: ISA_CFLAGS := -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16

.PHONY: all lib clean install uninstall help
all: $(BUILD)/ward lib
lib: $(BUILD)/libward.a $(BUILD)/libward.so $(BUILD)/ward.pc

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(BASE_CFLAGS) $(ISA_CFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/libward.a: $(OBJ)
	rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/libward.so.$(VERSION): $(OBJ)
	$(CC) -shared -Wl,-soname,libward.so.$(ABI) -Wl,-z,defs $(LDFLAGS_$(VARIANT)) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/libward.so: $(BUILD)/libward.so.$(VERSION)
	ln -sf $(<F) $(BUILD)/libward.so.$(ABI)
	ln -sf libward.so.$(ABI) $@

$(BUILD)/ward: $(CLI_OBJ) $(BUILD)/libward.a
	$(CC) $(LDFLAGS_$(VARIANT)) $(LDFLAGS) -o $@ $^ $(LIBS) $(CLI_LIBS)

$(BUILD)/ward.pc: Makefile include/ward.h
	@mkdir -p $(@D)
	printf 'prefix=%s\nlibdir=$${prefix}/lib\nincludedir=$${prefix}/include\n\nName: ward\nDescription: MedGemma on one machine, offline\nVersion: %s\nRequires.private: %s\nLibs: -L$${libdir} -lward\nLibs.private: -lm -pthread\nCflags: -I$${includedir}\n' \
	    '$(PREFIX)' '$(VERSION)' '$(ENGINE_PACKAGES)' > $@

# ---- tests: every tests/unit/test_*.c is a program that prints TAP ----------------------------------------------------------
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))
.PHONY: unit-tests
unit-tests: $(UNIT_TESTS)

$(BUILD)/tests/%: $(BUILD)/tests/unit/%.o $(BUILD)/libward.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS_$(VARIANT)) $(LDFLAGS) -o $@ $^ $(LIBS) $(TEST_LIBS)

clean:
	rm -rf $(BUILD)

help:
	@sed -n '2,4p' Makefile | cut -c3-

-include $(OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(wildcard $(BUILD)/tests/unit/*.d)
.SECONDARY:
